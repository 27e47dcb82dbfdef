"""One weight file -> named tensors, whatever its container; no code in it is ever run.

Containers: safetensors; PyTorch's zip or its older form, both read by `unpickle`; TorchScript archives (`torchscript`);
and a JSON index over shards of the first two.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from daptune import files
from daptune.regular import open_regular

from ...errors import BackboneError, foreign
from ...foreign import read_header
from ...foreign import read_json as read_bounded
from .torchscript import is_torchscript, read_torchscript
from .unpickle import View, read_archive

INDEX = ".index.json"
LARGEST_CONFIG = 16_000_000
"""Bytes of a config, or of an index over shards."""
_ADVICE = "which would run code: save the model's state_dict() as .safetensors and give that."
_WRAPPERS = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.", "model.")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; raises BackboneError for anything else."""
    with foreign(lambda why: BackboneError(f"{path} cannot be read as JSON ({why}); fetch the checkpoint again.")):
        content = read_bounded(path, most=LARGEST_CONFIG)
    if not isinstance(content, dict):
        raise BackboneError(f"{path} should hold a JSON object, found {type(content).__name__}.")
    return content


def files_of(path: Path) -> tuple[Path, ...]:
    """The weight files behind `path`: itself, or the shards of an index. Raises BackboneError for a missing one."""
    if not path.name.endswith(INDEX):
        return (path,)
    placed = read_json(path).get("weight_map")
    if not isinstance(placed, dict) or not placed:
        raise BackboneError(f"{path} is no index of shards: it has no weight_map; fetch the checkpoint again.")
    names = sorted({str(name) for name in placed.values()})
    with foreign(lambda why: BackboneError(f"{path} names shards that cannot be read ({why}); fetch it again.")):
        for name in names:
            if Path(name).name != name:
                raise BackboneError(f"{path} points outside its folder ({name!r}); shards must lie beside their index.")
            if not (path.parent / name).is_file():
                raise BackboneError(f"{path.parent} lacks the shard {name} that {path.name} names; fetch it again.")
        return tuple(path.parent / name for name in names)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], bool]:
    """Named tensors of a weight file or an index over shards, and whether it was a TorchScript archive.

    Wrappers ({"state_dict": ...}) and prefixes of training ("module.") are taken off. Raises BackboneError, in one
    line, for a file that is truncated, no checkpoint, or needs code to be run.
    """
    tensors: dict[str, Tensor] = {}
    scripted = False
    for file in files_of(path):
        found, scripted = _read_file(file)
        if not found:
            raise BackboneError(
                f"{file} holds no state dict, so it is truncated or damaged, or no CLIP's; fetch it again."
            )
        tensors |= found
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors, scripted


def _read_file(path: Path) -> tuple[dict[str, Tensor], bool]:
    refused = files.told(lambda why: BackboneError(f"{path} cannot be opened ({why}); give a checkpoint's file."))
    with refused, open_regular(path) as file:
        head = file.read(512)
    _refuse_other_files(path, head)
    with foreign(lambda why: BackboneError(f"{path} is truncated or damaged ({why}); fetch it again.")):
        if head[8:9] == b"{":
            with path.open("rb") as file:
                read_header(file, path.stat().st_size)
            return load_file(path), False
        if head.startswith(b"PK\x03\x04") and is_torchscript(path):
            return read_torchscript(path), True
        return read_state_dict(path), False


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The named tensors of a file of `torch.save`, in its wrappers or without one."""
    return read_archive(path, lambda module, name: False, _ADVICE, _views)[0]


def _views(content: Any) -> dict[str, View]:
    inner = _unwrapped(content)
    return {str(name): view for name, view in inner.items() if isinstance(view, View)}


def _refuse_other_files(path: Path, head: bytes) -> None:
    """Name what was saved in the place of a checkpoint."""
    text = head.lstrip().lower()
    if not head:
        found = "an empty file"
    elif text.startswith(b"version https://git-lfs"):
        found = "a git-lfs pointer to the weights, not the weights: run `git lfs pull` in its repository"
    elif text.startswith((b"<!doctype", b"<html", b"<?xml")):
        found = "a web page, saved in the place of the weights: open its address in a browser and log in if it asks"
    elif head[8:9] == b"{" or head.startswith((b"PK\x03\x04", b"\x80")):
        return
    else:
        found = "something else"  # never its bytes: an adapter may name any file of this machine
    raise BackboneError(f"{path} should be a .safetensors, .pt or .bin checkpoint, found {found}.")


def _unwrapped(content: Any) -> Mapping[Any, Any]:
    """The state dict in what a file held; empty where it holds none."""
    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    return content if isinstance(content, Mapping) else {}
