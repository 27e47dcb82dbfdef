"""Features of CLIPs with a trunk of timm equal open_clip's on made-up weights, within 1e-5 in float32.

Visual tokens have no reference outside; theirs are timm's blocks in a plain loop, the tokens joined without a place.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from daptune.clip.backbone import Backbone, load_backbone
from daptune.clip.suffixes import Suffixes

from ..clip.made_up_trunk import BARE, EVA, PE, make_tensors, openclip_config, write_openclip
from .conftest import oracle

TOLERANCE = 1e-5
TEXTS = ["a photo of a cat.", "", "X X X X X X X X naïve café, 12 dogs."]
NAMES = ["cat", "sea lake", "boeing 737 800", "naive cafe"]
CONFIGS = {"PE-Core": PE, "PE-Core G/14": BARE, "EVA02": EVA}


def images(side: int) -> Tensor:
    return torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(1))


def close(title: str, ours: Tensor, theirs: Tensor) -> None:
    difference = float((ours - theirs).abs().max())
    print(f"{title}: {difference:.1e} of {theirs.abs().max():.1f}")
    assert difference < TOLERANCE * max(1.0, float(theirs.abs().max()))


@pytest.fixture(params=CONFIGS)
def pair(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Backbone, str]:
    """open_clip's model with timm's trunk, cut to the sizes of the made-up one; ours read from its state dict."""
    open_clip, timm, config = oracle("open_clip"), oracle("timm"), CONFIGS[request.param]
    build, grid = timm.create_model, config.image_size // config.patch_size
    cut: dict[str, Any] = {
        "embed_dim": config.vision_width, "depth": config.vision_layers, "patch_size": config.patch_size,
        "img_size": config.image_size,
    }  # fmt: skip
    if config.family == "pe":
        cut["ref_feat_shape"] = (grid, grid)  # its own grid, as of the published sizes
    monkeypatch.setattr(timm, "create_model", lambda name, **options: build(name, **options | cut))
    settings = {key: value for key, value in openclip_config(config)["model_cfg"].items() if key != "custom_text"}
    model = open_clip.model.CustomTextCLIP(**settings).eval()
    folder = write_openclip(tmp_path, make_tensors(config, seed=2), config)
    model.load_state_dict(load_file(folder / "open_clip_model.safetensors"))
    backbone = load_backbone(folder, precision="fp32")
    assert backbone.clip.config == config
    return model, backbone, request.param


@torch.no_grad()
def test_images_and_texts(pair: tuple[Any, Backbone, str]) -> None:
    model, backbone, title = pair
    pixels, ids = images(backbone.clip.config.image_size), backbone.tokenizer(TEXTS)
    close(f"{title}, image", backbone.clip.encode_image(pixels), model.encode_image(pixels))
    close(f"{title}, text", backbone.clip.encode_text(ids), model.encode_text(ids))
    length = backbone.clip.config.context_length
    assert torch.equal(ids, oracle("open_clip").get_tokenizer("ViT-B-32", context_length=length)(TEXTS))


def through_theirs(trunk: Any, x: Tensor, rope: Tensor, layers: Tensor | None) -> Tensor:
    """timm's blocks and last norm on [class token | patches | visual tokens], of which the patches alone turn."""
    places = x.shape[1] if layers is None else x.shape[1] + layers.shape[1]
    first, d = trunk.num_prefix_tokens, rope.shape[-1] // 2
    still = torch.cat([torch.zeros(1, d), torch.ones(1, d)], -1)  # sin 0, cos 1: not turned
    rope = torch.cat([rope, still.expand(places - first - len(rope), -1)])
    for depth, block in enumerate(trunk.blocks):
        if layers is not None:
            own = layers[min(depth, len(layers) - 1)].expand(len(x), -1, -1)
            if depth < len(layers):
                x = torch.cat([x if depth == 0 else x[:, : -own.shape[1]], own], 1)
        x = block(x, rope=rope)
    return trunk.norm(x)


@torch.no_grad()
@pytest.mark.parametrize("before", [False, True])
def test_visual_tokens(pair: tuple[Any, Backbone, str], before: bool) -> None:
    """Also which of them the head sees, and the features of places: the head on one token. EVA02 has no head: its
    class token is read, and each patch gets the same norm and projection."""
    model, backbone, title = pair
    clip, trunk = backbone.clip, model.visual.trunk
    pixels, prompts = images(clip.config.image_size), torch.randn(2, 4, clip.config.vision_width)
    entered, rope = trunk._pos_embed(trunk.patch_embed(pixels))
    layers = torch.cat([trunk.norm_pre(prompts[:1]), prompts[1:]]) if before else prompts
    x = through_theirs(trunk, trunk.norm_pre(entered), rope, layers)
    own = x[:, : entered.shape[1]]
    for pooled, seen in ((True, x), (False, own)):
        found = clip.encode_image(pixels, prompts, before_ln_pre=before, pool_prompts=pooled)
        close(f"{title}, visual tokens", found, trunk.forward_head(seen))
    plain = through_theirs(trunk, trunk.norm_pre(entered), rope, None)
    places = [trunk.forward_head(plain[:, g : g + 1]) for g in range(trunk.num_prefix_tokens, plain.shape[1])]
    expected = torch.stack([trunk.forward_head(plain), *places], 1)
    close(f"{title}, places", clip.encode_image(pixels, patches=True), expected)


@torch.no_grad()
def test_learned_context(pair: tuple[Any, Backbone, str]) -> None:
    """Their text tower on [start | context | name . end], one text at a time."""
    model, backbone, title = pair
    width, text, start = backbone.clip.config.text_width, model.text, backbone.tokenizer.start
    context, found = torch.randn(2, 5, width), []
    suffixes = Suffixes.build(backbone.tokenizer, NAMES, 5)
    for one in context:
        for ids in suffixes.ids:
            x = torch.cat([text.token_embedding(torch.tensor(start)), one, text.token_embedding(torch.tensor(ids))])
            x = (x + text.positional_embedding[: len(x)])[None]
            mask = torch.full((x.shape[1], x.shape[1]), -torch.inf).triu(1)
            found.append(text.ln_final(text.transformer(x, attn_mask=mask))[0, -1] @ text.text_projection)
    expected = torch.stack(found).unflatten(0, (2, len(NAMES)))
    close(f"{title}, context", backbone.clip.text.features(context, suffixes), expected)


@torch.no_grad()
@pytest.mark.parametrize(
    "name",
    ["PE-Core-T-16-384", *(pytest.param(each, marks=pytest.mark.slow) for each in ("PE-Core-B-16", "EVA02-B-16"))],
)
def test_whole_models_by_their_names(name: str, tmp_path: Path) -> None:
    """open_clip's own config and state dict, at full size; unit features, for an untrained head is near 0."""
    open_clip = oracle("open_clip")
    torch.manual_seed(0)
    model = open_clip.create_model(name, pretrained=None).eval()
    for parameter in model.parameters():
        parameter += 0.01 * torch.randn_like(parameter)  # no bias is zero
    config = {"model_cfg": open_clip.get_model_config(name), "preprocess_cfg": {}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    save_file(model.state_dict(), tmp_path / "open_clip_model.safetensors")
    backbone = load_backbone(tmp_path, precision="fp32")
    pixels, ids = images(backbone.clip.config.image_size)[:1], backbone.tokenizer(TEXTS)
    for title, ours, theirs in (
        ("image", backbone.clip.encode_image(pixels), model.encode_image(pixels)),
        ("text", backbone.clip.encode_text(ids), model.encode_text(ids)),
    ):
        close(f"{name}, {title}", F.normalize(ours, dim=-1), F.normalize(theirs, dim=-1))
