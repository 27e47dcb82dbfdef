"""One weight file -> named tensors, whatever its container; no code in it is ever run.

Containers: safetensors; PyTorch's zip or its older pickle, both through `torch.load(weights_only=True)`; TorchScript
archives (`torchscript`); and a JSON index over shards of the first two.
"""

import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from daptune import files
from daptune.regular import open_regular

from ...errors import BackboneError
from .torchscript import is_torchscript, read_torchscript

INDEX = ".index.json"
_WRAPPERS = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.", "model.")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; raises BackboneError for anything else."""
    try:
        content = files.read_json(path)
    except (OSError, ValueError) as error:
        raise BackboneError(f"{path} cannot be read as JSON ({error}); fetch the checkpoint again.") from error
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
        content, scripted = _read_file(file)
        tensors |= _unwrap(content, file)
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors, scripted


def _read_file(path: Path) -> tuple[Any, bool]:
    refused = files.told(lambda why: BackboneError(f"{path} cannot be opened ({why}); give a checkpoint's file."))
    with refused, open_regular(path) as file:
        head = file.read(512)
    _refuse_other_files(path, head)
    try:
        if head[8:9] == b"{":
            return load_file(path), False
        zipped = head.startswith(b"PK\x03\x04")
        if zipped and is_torchscript(path):
            return read_torchscript(path), True
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # unusual pickle protocols: read, or refused below
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped), False
    except pickle.UnpicklingError as error:
        # torch says "Weights only load failed" when it refuses a class, and for bytes that are no pickle as well
        if "GLOBAL" in str(error) or "Unsupported class" in str(error) or "not an allowed" in str(error):
            raise BackboneError(
                f"{path} holds objects besides tensors, and loading them would run code: save the model's "
                "state_dict() as .safetensors and give that."
            ) from error
        raise BackboneError(f"{path} is damaged or no checkpoint; fetch it again.") from error
    except (SafetensorError, zipfile.BadZipFile, EOFError, RuntimeError, ValueError, KeyError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BackboneError(f"{path} is truncated or damaged ({reason}); fetch it again.") from error


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


def _unwrap(content: Any, path: Path) -> dict[str, Tensor]:
    """The state dict in what a file held."""
    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    tensors = {str(k): v for k, v in content.items() if isinstance(v, Tensor)} if isinstance(content, Mapping) else {}
    if not tensors:
        kind = type(content).__name__
        raise BackboneError(f"{path} holds no state dict (expected named tensors, found {kind}); give a CLIP's.")
    return tensors
