"""Import checkpoints of official code as a method with the same learned tensors.

    CoOp    KaiyangZhou/CoOp trainers/coop.py       ctx (M, W) or (C, M, W)
    DAPT    mlvlab/DAPT trainers/dapt.py            txt_ctx (M, W), vis_ctx (1, P, W_vision)
    MaPLe   muzairkhattak/multimodal-prompt-learning trainers/maple.py   ctx, proj, compound_prompts_text.<j>,
            compound_prompt_projections.<j>, within the whole CLIP

Each also holds the embedded class names (token_suffix), used to check the class names and the backbone, and to detect
frozen words after MaPLe's first tokens.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from daptune.clip.backbone import Backbone
from daptune.clip.checkpoints.dassl import read_training_state
from daptune.clip.suffixes import name_tokens
from daptune.errors import AdapterError, foreign, suggest
from daptune.methods import METHODS, make_config
from daptune.methods.base import Method
from daptune.regular import open_regular

_LEARNER = "prompt_learner."
_SUFFIX = "token_suffix"
_PHRASE = "a photo of a"  # CTX_INIT in every published configuration that sets it


@dataclass(frozen=True)
class Imported:
    """The method and its source: file name, sha256, epoch."""

    method: Method
    source: dict[str, Any]


def import_checkpoint(
    path: str | Path,
    method: str,
    backbone: Backbone,
    class_names: Sequence[str],
    options: Mapping[str, Any] | None = None,
) -> Imported:
    """Read a checkpoint of the official CoOp, DAPT or MaPLe (`model-best.pth.tar`, `model.pth.tar-<epoch>`).

    class_names: in the order of the labels. options: fields of the method's config that are not in the file, such as
    CoOp's class_position. Raises AdapterError for a method that cannot be imported, tensors of another method, and
    other class names or another backbone than in training; BackboneError for a file that cannot be read.
    """
    path = Path(path).expanduser()
    if method not in _READERS:
        raise AdapterError(f"no official checkpoint of {method!r} can be imported.{suggest(method, _READERS)}")
    names, reader = _READERS[method]

    def wanted(name: str) -> bool:
        return name.removeprefix(_LEARNER).split(".")[0] in {*names, _SUFFIX}

    found, epoch = read_training_state(path, wanted)
    tensors = {name.removeprefix(_LEARNER): tensor.float() for name, tensor in found.items()}
    lacking = [name for name in names if not any(key.split(".")[0] == name for key in tensors)]
    required = [name for name in lacking if not name.startswith("compound_")]  # a shallow MaPLe has none
    if required:
        held = ", ".join(sorted({key.split(".")[0] for key in tensors} - {_SUFFIX})) or "none of its tensors"
        raise AdapterError(f"{path} is not a checkpoint of {method}: expected {', '.join(required)}, found {held}.")
    learned, config = reader(tensors, path)
    suffix = tensors.get(_SUFFIX)
    if suffix is not None:
        _check_width(backbone, suffix, path)
        frozen = _frozen_words(backbone, suffix, config["text_tokens"]) if method == "maple" else []
        _check_names(backbone, suffix, class_names, frozen, path)
        if method == "maple" and not frozen:
            config |= {"context_init": ""}
    made = METHODS[method](backbone, class_names, make_config(method, config | dict(options or {})))
    made.load_state_dict(learned)
    made.requires_grad_(False).eval()
    with open_regular(path) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Imported(made, {"imported_from": path.name, "sha256": digest, "epoch": epoch})


def _coop(tensors: Mapping[str, Tensor], path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    context = tensors["ctx"]
    if context.dim() not in (2, 3):
        raise _shape(path, "ctx", context, "(M, W) or (C, M, W)")
    config = {"text_tokens": context.shape[-2], "class_specific": context.dim() == 3}
    return {"text_prompt": context}, config


def _dapt(tensors: Mapping[str, Tensor], path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    text, vision = tensors["txt_ctx"], tensors["vis_ctx"]
    if text.dim() != 2:
        raise _shape(path, "txt_ctx", text, "(M, W)")
    if vision.dim() != 3 or vision.shape[0] != 1:
        raise _shape(path, "vis_ctx", vision, "(1, P, W)")
    config = {"text_tokens": text.shape[0], "vision_tokens": vision.shape[1]}
    return {"text_prompt": text, "vision_prompt": vision[0]}, config


def _maple(tensors: Mapping[str, Tensor], path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    if tensors["ctx"].dim() != 2:
        raise _shape(path, "ctx", tensors["ctx"], "(M, W)")
    deeper = sum(name.startswith("compound_prompts_text.") for name in tensors)
    with foreign(lambda why: AdapterError(f"{path} is not a complete checkpoint of maple ({why}).")):
        text = [tensors["ctx"], *(tensors[f"compound_prompts_text.{j}"] for j in range(deeper))]
        layers = ["proj", *(f"compound_prompt_projections.{j}" for j in range(deeper))]
        learned = {
            "text_prompt": torch.stack(text),
            "coupling_weight": torch.stack([tensors[f"{layer}.weight"] for layer in layers]),
            "coupling_bias": torch.stack([tensors[f"{layer}.bias"] for layer in layers]),
        }
    return learned, {"text_tokens": len(text[0]), "prompt_depth": deeper + 1}


_READERS = {
    "coop": (("ctx",), _coop),
    "dapt": (("txt_ctx", "vis_ctx"), _dapt),
    "maple": (("ctx", "proj", "compound_prompts_text", "compound_prompt_projections"), _maple),
}


def _check_width(backbone: Backbone, suffix: Tensor, path: Path) -> None:
    width = backbone.clip.config.text_width
    if suffix.dim() != 3 or suffix.shape[2] != width:
        raise AdapterError(
            f"{path} was learned with text embeddings of width {suffix.shape[-1]}, {backbone.name!r} has {width}; name "
            "its backbone."
        )


def _frozen_words(backbone: Backbone, suffix: Tensor, learned: int) -> list[int]:
    """The words of "a photo of a" after the learned ones, if the checkpoint's prompts contain them."""
    words = backbone.tokenizer.encode(_PHRASE)[learned:]
    return words if len(suffix) and _embedded(backbone, suffix[0], words) else []


def _check_names(
    backbone: Backbone, suffix: Tensor, class_names: Sequence[str], frozen: Sequence[int], path: Path
) -> None:
    """AdapterError unless the checkpoint's embedded names (C, T, W) are those of the class names on this backbone."""
    if len(suffix) != len(class_names):
        raise AdapterError(f"{path} has {len(suffix)} classes, {len(class_names)} names were given; name every class.")
    for place, (name, row) in enumerate(zip(class_names, suffix, strict=True)):
        ids = [*frozen, *name_tokens(backbone.tokenizer, name)]
        if not _embedded(backbone, row, ids):
            reading = _reading(backbone, row)
            there = f"reads {reading!r} there" if reading else "cannot be read with this backbone"
            raise AdapterError(
                f"{path}: class {place} is {name!r} in the list and {there}; give the class names and the backbone of "
                "its training."
            )


def _embedded(backbone: Backbone, row: Tensor, ids: Sequence[int]) -> bool:
    """Whether the first rows of (T, W) are the embeddings of the tokens, up to fp16."""
    own = backbone.clip.text.embed(ids).cpu()
    return len(row) >= len(ids) and torch.allclose(row[: len(ids)], own, rtol=1e-2, atol=1e-3)


def _reading(backbone: Backbone, row: Tensor) -> str:
    """The words whose embeddings a row (T, W) holds, up to the EOT; empty if one is not a token's embedding."""
    table = backbone.clip.text.embed(range(backbone.clip.config.vocab_size)).cpu()  # (vocabulary, W)
    ids: list[int] = []
    for vector in row:
        distances = (table - vector).norm(dim=1)
        token = int(distances.argmin())
        if distances[token] > 1e-2 * (1 + float(vector.norm())):
            return ""
        if token == backbone.tokenizer.eot:
            break
        ids.append(token)
    return backbone.tokenizer.decode(ids).strip()


def _shape(path: Path, name: str, found: Tensor, expected: str) -> AdapterError:
    return AdapterError(f"{path}: {name} should be of shape {expected}, found {tuple(found.shape)}.")
