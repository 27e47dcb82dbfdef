"""What the names and shapes of a checkpoint say: which model it is, its sizes, and whether it is whole.

All names here are OpenAI's (openai/CLIP, clip/model.py, `build_model`); the other layouts are renamed first.
"""

import logging
import math
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from ...errors import BackboneError
from ...files import read_json
from ..families import COCA, EVA, MOBILE, ROBERTA, Family
from ..model import CLIP, CLIPConfig

log = logging.getLogger("daptune")

LAYOUTS: dict[str, Any] = read_json(Path(__file__).with_name("layouts.json"))
"""The names and settings of the other layouts."""

# Sizes and masks that OpenAI, open_clip and transformers store beside the weights
_NOT_WEIGHTS = re.compile(
    r"(^|.*\.)(input_resolution|context_length|vocab_size|attn_mask|position_ids|num_batches_tracked)$"
)
# Widths whose heads are not 64 wide: H/14, g/14 and bigG/14 of open_clip (src/open_clip/model_configs)
_HEAD_WIDTHS = {1280: 80, 1408: 88, 1664: 104}
# What only another kind of model has in its names -> what that model is
_OTHERS: tuple[tuple[str, str | Family], ...] = (
    (r"^text_decoder\.|^visual\.attn_pool\.query$", COCA),
    (r"^logit_bias$|^vision_model\.head\.", "a SigLIP model"),
    (r"^(visual\.trunk|image_encoder\.model)\..*(reparam|token_mixer)", MOBILE),
    (r"^visual\.trunk\.", "an open_clip model with a timm trunk as its vision tower"),
    (r"^transformer\.(embeddings|encoder)\.|^(roberta|bert)\.", ROBERTA),
    (r"^visual\.(blocks|rope)\.|\.(q_bias|v_bias)$", EVA),
    (r"^(blocks|patch_embed)\.|^(stem|stages|layer1)\.", "a vision network alone, without a text tower"),
)
ONLY = (
    "only CLIPs of OpenAI's form (RN50 to RN50x64, ViT-B to bigG), SigLIPs of one resolution, PE-Core, and EVA02 B and "
    "L are read"
)


MOST_LAYERS = 256
"""Layers of a tower; bigG/14 has 48."""


class Described(NamedTuple):
    """What the files of a layout say: tensors under OpenAI's names, and what their shapes cannot tell.

    vision_heads, text_heads: None where they follow from the widths (64 wide, but for H/14 and up).
    claims: sizes by their field of CLIPConfig as the config beside the weights, `source`, has them; None is no claim.
    transform: fields of Preprocess beside its size.
    family, text_activation, norm_eps, eos_id, class_token: as in CLIPConfig.
    vision: fields of CLIPConfig of the image tower, where its shapes are read elsewhere.
    """

    tensors: Mapping[str, Tensor]
    activation: str = "quick_gelu"
    vision_heads: int | None = None
    text_heads: int | None = None
    claims: Mapping[str, object] = {}
    transform: Mapping[str, Any] = {}
    source: str = ""
    family: str = "clip"
    text_activation: str = ""
    norm_eps: float = 1e-5
    vision: Mapping[str, Any] | None = None
    eos_id: int | None = None
    class_token: bool = True


def refuse(what: str, found: str) -> BackboneError:
    """The one sentence for a model of another kind."""
    return BackboneError(f"{what} is {found}; {ONLY}: try ViT-B-16/openai.")


def refuse_settings(title: str, part: Mapping[str, Any], known: Mapping[str, Any], where: str) -> None:
    """Raise BackboneError for a setting of a part of open_clip's config with which it computes otherwise.

    known: setting -> values under which it computes the same, or "any".
    """
    for key, value in part.items():
        allowed = known.get(key, ())
        if allowed != "any" and value not in allowed:
            raise refuse(where, f"an open_clip model with {title}.{key} = {value!r}")


def claimed(table: Mapping[str, Any], **parts: Mapping[str, Any]) -> dict[str, Any]:
    """The claims of a config. table: field of CLIPConfig -> part of the config, setting in it, what holds without."""
    return {field: parts[part].get(key, default) for field, (part, key, default) in table.items()}


def keep_weights(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without the sizes and masks that some files carry, and without the `text.` of open_clip's custom_text."""
    return {name.removeprefix("text."): t for name, t in tensors.items() if not _NOT_WEIGHTS.match(name)}


def stacked(parts: Mapping[str, Tensor], wanted: Sequence[str], name: str, where: str) -> Tensor:
    """The projections to queries, keys and values in one tensor. Raises BackboneError if one is missing or differs.

    wanted: what stands for {} in the `name` that a part has in the file, in order.
    """
    if lacking := [part for part in wanted if part not in parts]:
        raise BackboneError(f"{where} lacks {name.format(lacking[0])}; fetch it again.")
    if any(parts[part].ndim == 0 for part in wanted) or len({parts[part].shape[1:] for part in wanted}) > 1:
        raise BackboneError(f"{where}: {', '.join(map(name.format, wanted))} differ in shape; fetch it again.")
    return torch.cat([parts[part] for part in wanted])


def refuse_others(names: Collection[str], where: str) -> None:
    """Raise BackboneError when the parameter names are those of another kind of model."""
    for pattern, found in _OTHERS:
        if any(re.search(pattern, name) for name in names):
            raise found.refusal(where) if isinstance(found, Family) else refuse(where, found)
    towers = [any(name.startswith(p) for name in names) for p in ("visual.", "transformer.resblocks.")]
    if towers != [True, True]:
        shown = ", ".join(sorted(names)[:3])
        found = {(True, False): "a vision tower alone", (False, True): "a text tower alone"}.get(
            (towers[0], towers[1]), f"no CLIP (its first tensors are {shown})"
        )
        raise refuse(where, found)


def shape_of(tensors: Mapping[str, Tensor], name: str, dimensions: int, where: str) -> torch.Size:
    """The shape of a tensor. Raises BackboneError for one that is missing, or has other dimensions or no numbers."""
    if name not in tensors:
        raise BackboneError(f"{where} lacks the tensor {name}; {ONLY}.")
    found = tensors[name].shape
    if tensors[name].ndim != dimensions or not found.numel():
        raise BackboneError(f"{where}: {name} should have {dimensions} dimensions, found shape {tuple(found)}.")
    return found


def count_layers(tensors: Collection[str], prefix: str, where: str) -> int:
    """One more than the highest number behind `prefix`. Raises BackboneError for more than a tower has.

    A layer that is missing below the last is found missing later; the number itself is no reason to build a tower.
    """
    found = {name.removeprefix(prefix).split(".")[0] for name in tensors if name.startswith(prefix)}
    numbers = {layer for layer in found if layer.isdecimal()}
    if len(numbers) > MOST_LAYERS or (numbers and max(map(len, numbers)) > 3):
        raise BackboneError(f"{where}: {prefix} has {len(numbers)} layers or numbers beyond {MOST_LAYERS}; {ONLY}.")
    return max(map(int, numbers), default=-1) + 1


def sizes(described: Described, where: str) -> CLIPConfig:
    """Read every size off the shapes.

    Raises BackboneError for a model of another kind, for a tensor that is missing or has the wrong number of
    dimensions, and where the config beside the weights claims other sizes.
    """
    tensors, siglip = described.tensors, described.family == "siglip"
    if not siglip:
        refuse_others(tensors, where)
    vision = described.vision or _vision_transformer(described, where)
    context_length, text_width = shape_of(tensors, "positional_embedding", 2, where)
    projection = shape_of(tensors, "text_projection.weight" if siglip else "text_projection", 2, where)
    config = CLIPConfig(
        **vision,
        embed_dim=projection[0] if siglip else projection[1],
        context_length=context_length,
        vocab_size=shape_of(tensors, "token_embedding.weight", 2, where)[0],
        text_width=text_width,
        text_layers=count_layers(tensors, "transformer.resblocks.", where),
        text_heads=described.text_heads or max(1, text_width // 64),
        text_mlp=shape_of(tensors, "transformer.resblocks.0.mlp.c_fc.weight", 2, where)[0],
        activation=described.activation,
        text_activation=described.text_activation,
        norm_eps=described.norm_eps,
        family=described.family,
        eos_id=described.eos_id,
        class_token=described.class_token,
    )
    _believe(described, config, where)
    return config


def _vision_transformer(described: Described, where: str) -> dict[str, int]:
    tensors = described.tensors
    width, _, patch, _ = shape_of(tensors, "visual.conv1.weight", 4, where)
    positions, across = shape_of(tensors, "visual.positional_embedding", 2, where)
    if across != width:  # a tower of rotary positions is built with a table of both
        raise BackboneError(f"{where}: visual.positional_embedding should be {width} wide, found {across}.")
    patches = positions - (described.family != "siglip" and described.class_token)
    grid = math.isqrt(max(patches, 0))
    if grid * grid != patches:
        raise BackboneError(f"{where} has {patches} patch positions, no square: {ONLY}.")
    return {
        "image_size": _side(described, grid, patch),
        "patch_size": patch,
        "vision_width": width,
        "vision_layers": count_layers(tensors, "visual.transformer.resblocks.", where),
        "vision_heads": described.vision_heads or max(1, width // _HEAD_WIDTHS.get(width, 64)),
        "vision_mlp": shape_of(tensors, "visual.transformer.resblocks.0.mlp.c_fc.weight", 2, where)[0],
    }


def _believe(described: Described, config: CLIPConfig, where: str) -> None:
    wrong = [
        f"{field} {claim} (the weights have {getattr(config, field)})"
        for field, claim in described.claims.items()
        if claim is not None and claim != getattr(config, field)
    ]
    if wrong:
        raise BackboneError(f"{described.source} does not belong to {where}: it says {', '.join(wrong)}.")


def _side(described: Described, grid: int, patch: int) -> int:
    """Pixels of an image's side; SigLIP's 384 are 27 patches of 14 and 6 pixels that no patch sees."""
    said = described.claims.get("image_size")
    fits = described.family == "siglip" and isinstance(said, int) and said // patch == grid
    return cast(int, said) if fits else grid * patch


def check(tensors: Mapping[str, Tensor], config: CLIPConfig, where: str, left: str = "") -> dict[str, Tensor]:
    """Exactly the tensors of `config`, in float32, but for the one that is `left` in its file; raises BackboneError
    naming what is missing, too many, mis-shaped, not of a floating type, or not finite."""
    with torch.device("meta"):
        wanted = {name: tensor.shape for name, tensor in CLIP(config).state_dict().items()}
    shaped = {name: tensors[name].shape for name in wanted.keys() & tensors.keys()}
    # a scale of shape (1,) is the same number
    off = {
        n for n, s in shaped.items() if s != wanted[n] and not (n in ("logit_scale", "logit_bias") and s.numel() == 1)
    }
    faults = [
        ("missing", sorted(wanted.keys() - tensors.keys())),
        ("unexpected", sorted(tensors.keys() - wanted.keys())),
        ("of the wrong shape", [f"{n} {tuple(shaped[n])} instead of {tuple(wanted[n])}" for n in sorted(off)]),
        ("not of a floating type", sorted(n for n in shaped if not tensors[n].is_floating_point())),
    ]
    if found := "; ".join(_listed(kind, names) for kind, names in faults if names):
        raise BackboneError(f"{where} is not the CLIP that its sizes promise: {found}.")
    # copied, so that nothing points into a file that may change
    floats = {n: tensors[n].to(torch.float32, copy=True).reshape(wanted[n]).contiguous() for n in wanted if n != left}
    if broken := [name for name, tensor in floats.items() if not torch.isfinite(tensor.sum())]:
        raise BackboneError(f"{where} has values that are not finite: {_listed('in', broken)}; fetch it again.")
    return floats


def _listed(kind: str, names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{kind} {', '.join(names[:3])}{more}"
