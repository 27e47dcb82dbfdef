"""CLIPs with a residual network, under OpenAI's names: a TorchScript archive, a state dict or an open_clip folder.

openai/CLIP, clip/model.py (`build_model`); open_clip, src/open_clip/modified_resnet.py. The statistics of a batch norm
never change here, so that y = (x - mean) / sqrt(var + eps) weight + bias is folded into the convolution that gives x.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ...errors import BackboneError
from ..resnet import REDUCTION
from .shapes import Described, count_layers, shape_of

MARK = "visual.layer1.0.conv1.weight"
_STAGE = "visual.layer{}."
_EPS = 1e-5
_STATISTICS = ("weight", "bias", "running_mean", "running_var")


def described(
    tensors: Mapping[str, Tensor],
    where: str,
    *,
    quick_gelu: bool = True,
    head_width: int = 64,
    text_heads: int | None = None,
    claims: Mapping[str, object] | None = None,
    transform: Mapping[str, Any] | None = None,
    source: Path | str = "",
) -> Described:
    """What tensors of a residual network say; `claims` as open_clip's config has them. Raises BackboneError for other
    shapes than those of OpenAI's networks."""
    positions, width = shape_of(tensors, "visual.attnpool.positional_embedding", 2, where)
    stem = shape_of(tensors, _STAGE.format(1) + "0.conv1.weight", 4, where)[0]
    grid = math.isqrt(max(positions - 1, 0))
    if not grid or grid * grid != positions - 1 or width != REDUCTION * stem:
        raise BackboneError(
            f"{where} has an attention pool of {positions - 1} places and width {width} behind a stem of {stem} "
            f"channels; expected a square and {REDUCTION * stem}; fetch it again."
        )
    stages = tuple(count_layers(tensors, _STAGE.format(number), where) for number in range(1, 5))
    if 0 in stages:
        raise BackboneError(f"{where} lacks the blocks of visual.layer{1 + stages.index(0)}; fetch it again.")
    said = dict(claims or {})
    if said:
        layers, stem_width = said.pop("vision_layers"), said.pop("vision_width")
        said.pop("vision_mlp")
        said["vision_stages"] = tuple(layers) if isinstance(layers, list | tuple) else layers
        said["vision_width"] = REDUCTION * int(str(stem_width))
    return Described(
        _folded(tensors, where),
        activation="quick_gelu" if quick_gelu else "gelu",
        text_heads=text_heads,
        claims=said,
        transform=transform or {},
        source=str(source),
        family="resnet",
        vision={
            "image_size": REDUCTION * grid,
            "patch_size": REDUCTION,
            "vision_width": width,
            "vision_layers": sum(stages),
            "vision_heads": max(1, width // head_width),
            "vision_mlp": 0,
            "vision_stages": stages,
        },
    )


def _folded(tensors: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """Convolutions with a bias in the place of those followed by a batch norm."""
    found = dict(tensors)
    for name, weight in tensors.items():
        if not name.startswith("visual.") or weight.ndim != 4 or not name.endswith(".weight"):
            continue
        if not weight.is_floating_point():
            raise BackboneError(f"{where}: {name} is not of a floating type; fetch it again.")
        stem = name.removesuffix(".weight")
        norm = f"{stem[:-1]}1" if ".downsample." in stem else f"{stem[:-5]}bn{stem[-1]}"
        scale, shift, mean, var = (
            _vector(found.pop(f"{norm}.{kind}", None), weight, norm, kind, where) for kind in _STATISTICS
        )
        scale = scale / (var + _EPS).sqrt()
        found[name] = (weight.double() * scale[:, None, None, None]).float()
        found[f"{stem}.bias"] = (shift - mean * scale).float()
    return found


def _vector(tensor: Tensor | None, weight: Tensor, norm: str, kind: str, where: str) -> Tensor:
    if tensor is None or tensor.shape != weight.shape[:1]:
        lacking = "lacks" if tensor is None else "has a wrong shape of"
        raise BackboneError(f"{where} {lacking} {norm}.{kind}, the batch norm of a convolution; fetch it again.")
    return tensor.double()
