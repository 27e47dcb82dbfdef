"""Features of CLIPs with a residual network equal those of open_clip on made-up weights, within 1e-5 in float32."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from daptune.clip.backbone import load_backbone

from ..clip.made_up import write_archive
from ..clip.made_up_resnet import RESNET, make_tensors, openclip_config, write_openclip
from .conftest import oracle

TOLERANCE = 1e-5
TEXTS = ["a photo of a cat.", "", "X X X X X X X X naïve café, 12 dogs."]
WIDE = replace(
    RESNET, image_size=96, embed_dim=40, vision_width=256, vision_heads=4, vision_stages=(2, 1, 3, 2), vision_layers=8
)


def images(side: int) -> Tensor:
    return torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(1))


def close(title: str, ours: Tensor, theirs: Tensor) -> None:
    difference = float((ours - theirs).abs().max())
    print(f"{title}: {difference:.1e} of {theirs.abs().max():.1f}")
    assert difference < TOLERANCE * max(1.0, float(theirs.abs().max()))


def compare(title: str, path: Path, model: Any) -> None:
    """Image and text features, and those of each place: every token a query of the pool, and its value alone."""
    clip, tokens = load_backbone(path, precision="fp32").clip, oracle("open_clip").tokenize(TEXTS)
    pixels = images(clip.config.image_size)
    with torch.no_grad():
        close(f"{title}, image", clip.encode_image(pixels), model.encode_image(pixels))
        close(f"{title}, text", clip.encode_text(tokens), model.encode_text(tokens))
        pool, visual = model.visual.attnpool, model.visual
        x = visual.layer4(visual.layer3(visual.layer2(visual.layer1(visual.stem(pixels))))).flatten(2).permute(2, 0, 1)
        x = torch.cat([x.mean(0, keepdim=True), x]) + pool.positional_embedding[:, None]
        bias = torch.cat([pool.q_proj.bias, pool.k_proj.bias, pool.v_proj.bias])
        found = F.multi_head_attention_forward(
            x, x, x, x.shape[-1], pool.num_heads, None, bias, None, None, False, 0.0, pool.c_proj.weight,
            pool.c_proj.bias, training=False, need_weights=False, use_separate_proj_weight=True,
            q_proj_weight=pool.q_proj.weight, k_proj_weight=pool.k_proj.weight, v_proj_weight=pool.v_proj.weight,
        )[0]  # fmt: skip
        close(f"{title}, each place as a query", clip.encode_image(pixels, patches=True), found.transpose(0, 1))
        alone = pool.c_proj(pool.v_proj(x[1:])).transpose(0, 1)
        close(f"{title}, each place alone", clip.visual.each_patch(pixels), alone)


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
@pytest.mark.parametrize("config", [RESNET, WIDE], ids=["small", "wide"])
def test_open_clip(config: Any, activation: str, tmp_path: Path) -> None:
    config = replace(config, activation=activation)
    model = oracle("open_clip").CLIP(**openclip_config(config)["model_cfg"]).eval()
    model.load_state_dict(make_tensors(config, seed=3))
    folder = write_openclip(tmp_path, model.state_dict(), config)
    assert load_backbone(folder).clip.config == config
    compare("open_clip", folder, model)


def test_openai_archive_in_open_clip(tmp_path: Path) -> None:
    """The same archive, read by open_clip through torch.jit.load and by us without; OpenAI's are in float16 but for
    the batch norms."""
    tensors = {
        name: tensor if ".bn" in name or "downsample.1" in name or not tensor.is_floating_point() else tensor.half()
        for name, tensor in make_tensors(seed=5).items()
    }
    archive = write_archive(tmp_path / "RN.pt", tensors, mask=False)
    model = oracle("open_clip.openai").load_openai_model(str(archive), precision="fp32", device="cpu")
    compare("open_clip, OpenAI's archive", archive, model)
