"""Checkpoints of CLIP -> sizes, tensors, transform and tokenizer; no file that is read can run code.

These layouts are known, in a folder or as a single file:

    OpenAI         one .pt: a TorchScript archive, or a state dict under OpenAI's names     (QuickGELU, heads 64 wide)
    open_clip      open_clip_config.json + open_clip_model.safetensors or open_clip_pytorch_model.bin
    transformers   config.json of a CLIPModel + model.safetensors (also in shards) or pytorch_model.bin
    Meta           one .pt of a PE-Core: a state dict                                       (GELU, no config)

Sizes are read from the shapes of the tensors; the config beside them adds what shapes cannot say (heads, activation)
and must agree with the rest.
"""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from ...errors import BackboneError, foreign
from ..file_tokenizer import FILES
from ..model import CLIPConfig
from ..preprocess import Preprocess
from ..rows import NAME, EmbeddingRows, find_rows
from . import huggingface, openclip, resnet, trunk
from .containers import files_of, read_json, read_tensors
from .shapes import Described, check, keep_weights, log, sizes

__all__ = ["SUFFIXES", "Checkpoint", "find_layout", "is_clip_model", "read_checkpoint", "refuse_config"]

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")


class Checkpoint(NamedTuple):
    """What a checkpoint holds: `tensors` are float32 under OpenAI's names, `tokenizer` is the folder's own or None,
    `files` are the files that the weights came from, `rows` is a large token table, which is not in `tensors`."""

    config: CLIPConfig
    tensors: dict[str, Tensor]
    preprocess: Preprocess
    tokenizer: Path | None
    files: tuple[Path, ...]
    rows: EmbeddingRows | None = None


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a folder or a file in any of the layouts.

    Raises BackboneError, in one line, for a path without a checkpoint, a model of another kind, or a damaged file.
    """
    weights = _find_weights(path) if path.is_dir() else path
    if not weights.is_file():
        raise BackboneError(f"there is no file or folder {str(path)!r}; give a checkpoint, or a name such as photo.")
    folder = weights.parent
    tensors, scripted = read_tensors(weights)
    where = str(path)
    with foreign(lambda why: BackboneError(f"the config beside {where} cannot be understood ({why}); fetch it again.")):
        described, lacking = _describe(keep_weights(tensors), folder, where, scripted)
        config = sizes(described, where)
        preprocess = Preprocess.from_dict({"size": config.image_size} | dict(described.transform))
        rows = find_rows(files_of(weights))
        found = check(described.tensors, config, where, left=NAME if rows else "")
    if lacking and not scripted:
        log.warning("%s has no %s beside it: QuickGELU and OpenAI's image transform are assumed.", where, lacking)
    own = next((path for name in FILES if (path := folder / name).is_file()), None)
    return Checkpoint(
        config=config,
        tensors=found,
        preprocess=preprocess,
        tokenizer=None if scripted else own,
        files=files_of(weights),
        rows=rows,
    )


def _describe(tensors: dict[str, Tensor], folder: Path, where: str, scripted: bool) -> tuple[Described, str]:
    """Choose the layout by the tensors' names and the configs beside them; also says which config is lacking."""
    if huggingface.MARK in tensors or any(name.startswith("vision_model.") for name in tensors):
        if (folder / huggingface.CONFIG).is_file():
            return huggingface.read(tensors, folder, where), ""
        return Described(huggingface.rename(tensors, where)), huggingface.CONFIG
    if trunk.META in tensors:
        return trunk.of_meta(tensors, where), ""
    if (folder / openclip.CONFIG).is_file() and not scripted:
        return openclip.read(tensors, folder, where), ""
    return resnet.described(tensors, where) if resnet.MARK in tensors else Described(tensors), openclip.CONFIG


def find_layout(files: Collection[str], is_clip: Callable[[], bool]) -> tuple[str, str] | None:
    """Of the names of a folder's files, (config, weights) of the layout to read; None where none is whole.

    Safetensors come before pickles in whatever layout, then open_clip's before transformers'. `is_clip`, asked where
    both are there, says whether config.json is a CLIPModel's: beside open_clip's files it may be timm's.
    """
    found = [
        (layout.CONFIG, weights)
        for layout in (openclip, huggingface)
        if layout.CONFIG in files
        for weights in layout.WEIGHTS
        if weights in files
    ]
    for config, weights in sorted(found, key=lambda pair: ".safetensors" not in pair[1]):
        alone = found[0][0] == config  # open_clip's are listed first
        if config == openclip.CONFIG or alone or is_clip():
            return config, weights
    return None


def is_clip_model(config: Path | None) -> bool:
    """Whether a `config.json` can be read and is that of a model of transformers that is read here."""
    try:
        return config is not None and read_json(config).get("model_type") in huggingface.MODELS
    except BackboneError:
        return False


def refuse_config(config: Path, where: str) -> None:
    """Raise BackboneError for a config whose family is known and not served, or is no CLIP's."""
    content = read_json(config)
    if config.name == huggingface.CONFIG:
        huggingface.refuse_model(content, where)
    else:
        openclip.refuse_family(content, where)


def _find_weights(folder: Path) -> Path:
    """The weight file of a folder: by the names of the layout whose config is there, else the only one."""
    config = folder / huggingface.CONFIG
    files = {entry.name for entry in folder.iterdir() if entry.is_file()}
    if layout := find_layout(files, lambda: is_clip_model(config)):
        return folder / layout[1]
    if config.name in files:
        huggingface.refuse_model(read_json(config), str(folder))
    single = sorted(entry for entry in folder.iterdir() if entry.suffix in SUFFIXES and entry.is_file())
    if len(single) == 1:
        return single[0]
    found = ", ".join(entry.name for entry in single[:4]) if single else "none"
    raise BackboneError(
        f"{folder} should hold one checkpoint (open_clip_config.json or config.json with its weights, or one .pt), "
        f"found weight files: {found}; name the file."
    )
