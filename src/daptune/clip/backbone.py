"""Load a frozen CLIP, its tokenizer and its preprocessing by name."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import torch

from ..errors import BackboneError
from .checkpoints import read_checkpoint
from .file_tokenizer import FILES, FileTokenizer
from .hub import locate, pull, resolve
from .model import CLIP, CLIPConfig, Precision
from .precision import resolve_precision
from .preprocess import Preprocess
from .tokenizer import TextTokenizer, Tokenizer

__all__ = ["Backbone", "load_backbone", "pull", "resolve_precision"]


@dataclass
class Backbone:
    """A frozen CLIP with its tokenizer and image transform.

    `name` is the name it was loaded by; `sha256` that of the weight file (for several files: `sha256_of`);
    `precision` is "fp32", "bf16" or "fp16-faithful".
    """

    clip: CLIP
    tokenizer: TextTokenizer
    preprocess: Preprocess
    name: str
    sha256: str
    precision: str = "fp32"

    @property
    def device(self) -> torch.device:
        return self.clip.device

    @property
    def about(self) -> dict[str, str]:
        """What an adapter's answers depend on beside the weights' hash, for families other than OpenAI's."""
        if not self.tokenizer.digest:
            return {}
        bias = self.clip.logit_bias
        own = {} if bias is None else {"logit_bias": str(float(bias))}
        return {"family": self.clip.config.family, **own, "tokenizer": self.tokenizer.digest}

    def to(self, device: str | torch.device) -> "Backbone":
        """Move the towers and return self. Raises BackboneError for an unavailable device."""
        self.clip.to(_device(device))
        return self


def load_backbone(
    name: str | Path = "tiny",
    *,
    precision: str = "auto",
    device: str | torch.device = "cpu",
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    download: bool = True,
) -> Backbone:
    """Load a frozen CLIP by name: `photo`, `ViT-B-16/openai`, `hf:org/repo[@revision]`, a folder or a file (see `hub`).

    `revision` is a branch, tag or commit of the Hub's repository, `cache_dir` the Hub's cache (default: its own).
    Without `download`, what is not in the cache is refused: for names that someone else chose.
    Raises BackboneError if it cannot be found, read or run with this precision and device.
    """
    where = _device(device)
    source = resolve(name, revision)
    path = locate(name, revision=revision, cache_dir=Path(cache_dir) if cache_dir else None, download=download)
    config, tensors, preprocess, own_tokenizer, files, rows = read_checkpoint(path)
    if source.activation:
        config = replace(config, activation=source.activation)
    if source.preprocess:
        preprocess = Preprocess.from_dict(preprocess.to_dict() | source.preprocess)
    chosen = resolve_precision(precision, where)
    tokenizer = _tokenizer(own_tokenizer, config, path)
    with torch.device("meta"):
        clip = CLIP(config)
    if rows is not None:
        clip.text.token_embedding = rows
    clip.load_state_dict(tensors, assign=True)  # without a second copy in memory
    clip.requires_grad_(False).eval()
    stored: dict[str, Precision] = {"fp32": "fp32", "bf16": "bf16", "fp16-faithful": "fp16"}
    clip.set_precision(stored[chosen]).to(where)
    return Backbone(clip, tokenizer, preprocess, source.name, sha256_of(files), chosen)


def sha256_of(files: Iterable[Path]) -> str:
    """Hexadecimal SHA-256 of one file; for several, of the lines "<digest>  <name>" in order of name."""
    digests = {file.name: _digest(file.resolve(), file.stat().st_size, file.stat().st_mtime_ns) for file in files}
    if len(digests) == 1:
        return next(iter(digests.values()))
    lines = "".join(f"{digests[name]}  {name}\n" for name in sorted(digests))
    return hashlib.sha256(lines.encode()).hexdigest()


@lru_cache(maxsize=64)
def _digest(path: Path, size: int, modified: int) -> str:
    """Size and modification time are part of the cache key, so that a changed file is read again."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _tokenizer(own: Path | None, config: CLIPConfig, path: Path) -> TextTokenizer:
    vocabulary = config.vocab_size
    if config.family in ("siglip", "metaclip2"):
        if own is None:
            raise BackboneError(f"{path} has neither {' nor '.join(FILES)} beside it: copy one from its repository.")
        return FileTokenizer(own, context_length=config.context_length, rows=vocabulary, eos_id=config.eos_id)
    tokenizer = Tokenizer(own, context_length=config.context_length)
    if tokenizer.vocab_size != vocabulary:
        source = f"{own} has {tokenizer.vocab_size}" if own else f"there is no tokenizer.json beside {path}"
        raise BackboneError(
            f"{path} embeds {vocabulary} tokens, but {source}: the tokenizer of this checkpoint is needed."
        )
    return tokenizer


def _device(device: str | torch.device) -> torch.device:
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # torch built without CUDA asserts
        reason = str(error).splitlines()[0]
        raise BackboneError(f"the device {str(device)!r} cannot be used ({reason}); use cpu.") from error
    return found
