"""The image tower of EVA02-CLIP against the same written out, its checkpoints, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from daptune.classifier import FewShotClassifier
from daptune.clip.backbone import Backbone, load_backbone
from daptune.clip.hub import resolve
from daptune.errors import BackboneError
from daptune.export.onnx_file import export_onnx
from daptune.methods import METHODS, make_config

from .made_up_trunk import EVA, make_tensors, openclip_config, to_openclip, write_openclip
from .written_out import image_state, layer, mix, norm, patches_of, turned

IMAGES = torch.randn(3, 3, 48, 48, generator=torch.Generator().manual_seed(1))
EPS = 1e-6


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    return make_tensors(EVA)


@pytest.fixture(scope="module")
def eva(tmp_path_factory: pytest.TempPathFactory, tensors: dict[str, Tensor]) -> Backbone:
    return load_backbone(write_openclip(tmp_path_factory.mktemp("eva"), tensors, EVA), precision="fp32")


def one_line(path: Path, *words: str) -> None:
    with pytest.raises(BackboneError) as caught:
        load_backbone(path)
    message = str(caught.value)
    assert "\n" not in message and all(word in message for word in words), message


def written_out(tensors: dict[str, Tensor], image: Tensor, tokens: Tensor | None = None, join: int = 0) -> Tensor:
    """Tokens behind the last norm (L, W) float64 of an image whose visual tokens (J, n, W) join at block `join`."""
    state, side = image_state(tensors), 3
    x = patches_of(image, state, side) + state["conv1.bias"]
    x = torch.cat([state["class_embedding"][None], x]) + state["positional_embedding"]
    own = len(x)
    for depth in range(EVA.vision_layers):
        if tokens is not None and join <= depth < join + len(tokens):
            x = torch.cat([x[:own], tokens[depth - join].double()])
        block = f"transformer.resblocks.{depth}"
        weight, bias = (state[f"{block}.attn.in_proj_{kind}"].chunk(3) for kind in ("weight", "bias"))
        h = norm(x, state, f"{block}.ln_1", EPS)
        query, key, value = h @ weight[0].T + bias[0], h @ weight[1].T, h @ weight[2].T + bias[2]  # keys: no bias
        for g in range(side * side):
            places = g // side * 16 / 3, g % side * 16 / 3  # row first, scaled to 16 x 16
            for part in (query, key):
                part[1 + g] = torch.cat([turned(one, *places) for one in part[1 + g].reshape(12, -1)])
        attended = norm(mix(query, key, value, 12), state, f"{block}.attn.ln", EPS)
        x = x + layer(attended, state, f"{block}.attn.out_proj")
        h = norm(x, state, f"{block}.ln_2", EPS)
        gate = layer(h, state, f"{block}.mlp.c_gate")
        inner = gate * gate.sigmoid() * layer(h, state, f"{block}.mlp.c_fc")
        x = x + layer(norm(inner, state, f"{block}.mlp.ln", EPS), state, f"{block}.mlp.c_proj")
    return norm(x, state, "ln_post", EPS)


def test_the_tower_is_what_was_written_out(eva: Backbone, tensors: dict[str, Tensor]) -> None:
    """Images with and without visual tokens, and the features of patches."""
    state, tokens = image_state(tensors), torch.randn(2, 11, 96, generator=torch.Generator().manual_seed(2))
    plain, prompted = (written_out(tensors, IMAGES[0], given) for given in (None, tokens))
    for found, expected in (
        (eva.clip.encode_image(IMAGES[:1])[0], plain[0]),
        (eva.clip.encode_image(IMAGES[:1], tokens)[0], prompted[0]),
        (eva.clip.encode_image(IMAGES[:1], tokens, before_ln_pre=True)[0], prompted[0]),  # there is no ln_pre
        (eva.clip.encode_image(IMAGES[:1], patches=True)[0], plain),
        (eva.clip.encode_image(IMAGES[:1], tokens, patches=True)[0], prompted[:10]),
    ):
        expected = expected @ state["proj"] + state["proj_bias"]
        torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("count", [2, 9])
def test_tokens_join_at_a_middle_block(eva: Backbone, tensors: dict[str, Tensor], count: int) -> None:
    """Read beside the class token. As many as there are patches: they still have no places."""
    tokens = torch.randn(2, count, 96, generator=torch.Generator().manual_seed(2))
    visual = eva.clip.visual
    found = visual.above(visual.below(IMAGES[:1], 1), 1, tokens)[0]
    expected = written_out(tensors, IMAGES[0], tokens, join=1)
    torch.testing.assert_close(found.double(), expected[[0, *range(10, 10 + count)]], atol=1e-5, rtol=1e-5)


def test_low_rank_matrices_of_the_output_see_the_normalised_heads(
    eva: Backbone, tensors: dict[str, Tensor], tmp_path: Path
) -> None:
    """CLIP-LoRA on all four matrices, and the tower of weights to which its products were added."""
    options = {"encoder": "vision", "matrices": ["q", "k", "v", "o"]}
    lora = METHODS["clip_lora"](eva, ["cat", "dog"], make_config("clip_lora", options)).eval()
    low, changed = lora.vision_lora, {name: tensor.clone() for name, tensor in tensors.items()}
    assert low is not None
    low.b.data.normal_(std=0.1, generator=torch.Generator().manual_seed(3))
    for j, depth in enumerate(low.layers):
        block = f"visual.transformer.resblocks.{depth}.attn"
        for n, matrix in enumerate(low.matrices):
            place = "qkvo".index(matrix)
            weight = changed[f"{block}.out_proj.weight" if matrix == "o" else f"{block}.in_proj_weight"]
            rows = slice(0, 96) if matrix == "o" else slice(place * 96, (place + 1) * 96)
            weight[rows] += low.scale * low.b[j, n].detach() @ low.a[j, n].detach()
    merged = load_backbone(write_openclip(tmp_path, changed, EVA), precision="fp32").clip
    expected = F.normalize(merged.encode_image(IMAGES), dim=-1)
    torch.testing.assert_close(lora.image_features(IMAGES), expected, atol=1e-5, rtol=1e-4)
    assert (expected - F.normalize(eva.clip.encode_image(IMAGES), dim=-1)).abs().max() > 1e-2


def test_gradients_reach_visual_tokens(eva: Backbone) -> None:
    """By central differences, through turned keys and both inner norms."""
    tokens = torch.randn(1, 2, 96, generator=torch.Generator().manual_seed(2)).requires_grad_()
    weights = torch.randn(3, 40, generator=torch.Generator().manual_seed(4))

    def value(given: Tensor) -> Tensor:
        return (eva.clip.encode_image(IMAGES, given) * weights).sum()

    (gradient,) = torch.autograd.grad(value(tokens), tokens)
    direction = torch.randn(tokens.shape, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        slope = (value(tokens + 1e-3 * direction) - value(tokens - 1e-3 * direction)) / 2e-3
    torch.testing.assert_close((gradient * direction).sum(), slope, atol=5e-2, rtol=5e-3)


def test_a_folder_is_read(eva: Backbone, tensors: dict[str, Tensor]) -> None:
    assert eva.clip.config == EVA
    state = eva.clip.state_dict()
    assert set(state) == set(tensors) and all(torch.equal(state[name], tensors[name]) for name in state)
    assert (eva.preprocess.size, eva.preprocess.resize, eva.preprocess.interpolation) == (48, "shortest", "bicubic")
    assert eva.preprocess.mean[0] == pytest.approx(0.48145466)  # OpenAI's


def test_half_precision(tensors: dict[str, Tensor], eva: Backbone, tmp_path: Path) -> None:
    """The repositories' weights are in float16; computed in bf16."""
    half = {name: tensor.half() for name, tensor in to_openclip(tensors).items()}
    save_file(half, tmp_path / "open_clip_model.safetensors")
    (tmp_path / "open_clip_config.json").write_text(json.dumps(openclip_config(EVA)))
    low = load_backbone(tmp_path, precision="bf16").clip
    found, expected = (F.normalize(clip.encode_image(IMAGES), dim=-1) for clip in (low, eva.clip))
    assert low.dtype == torch.bfloat16 and ((found * expected).sum(-1) > 0.999).all()


@pytest.mark.parametrize(
    ("part", "setting", "word"),
    [
        ("vision_cfg", {"timm_pool": "map"}, "vision_cfg.timm_pool = 'map'"),
        ("vision_cfg", {"timm_model_name": "eva02_enormous_patch14_clip_224"}, "EVA02-CLIP E/14"),
        ("vision_cfg", {"timm_model_name": "eva_giant_patch14_224"}, "is an EVA01-CLIP"),
        (
            "vision_cfg",
            {"timm_model_name": "eva02_small_patch16_clip_224"},
            "timm's eva02_small_patch16_clip_224; only",
        ),
        ("vision_cfg", {"timm_model_name": "eva02_large_patch14_448"}, "timm's eva02_large_patch14_448; only"),
        ("vision_cfg", {"image_size": 336}, "image_size 336 (the weights have 48)"),
        ("text_cfg", {"heads": 3}, "text width 128 is not a multiple of its 3 heads"),
    ],
)
def test_other_settings(
    tmp_path: Path, tensors: dict[str, Tensor], part: str, setting: dict[str, object], word: str
) -> None:
    path = write_openclip(tmp_path, tensors, EVA) / "open_clip_config.json"
    content = openclip_config(EVA)
    content["model_cfg"][part].update(setting)
    path.write_text(json.dumps(content))
    one_line(tmp_path, word)


def test_files_that_are_not_whole(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    path = write_openclip(tmp_path, tensors, EVA) / "open_clip_model.safetensors"
    whole = load_file(path)
    block = "visual.trunk.blocks.1"
    for left_out, words in (
        (f"{block}.attn.k_proj.weight", f"lacks {block}.attn.k_proj.weight"),
        (f"{block}.attn.q_proj.bias", f"lacks {block}.attn.q_proj.bias"),
        (f"{block}.mlp.norm.weight", "missing visual.transformer.resblocks.1.mlp.ln.weight"),
        ("visual.trunk.head.bias", "missing visual.proj_bias"),
    ):
        save_file({name: tensor for name, tensor in whole.items() if name != left_out}, path)
        one_line(tmp_path, words)
    save_file(whole | {f"{block}.attn.q_proj.weight": torch.zeros(96, 95)}, path)
    one_line(tmp_path, f"{block}.attn.q_proj.weight, {block}.attn.k_proj.weight", "differ in shape")
    save_file({name.replace("visual.trunk.", "visual."): tensor for name, tensor in whole.items()}, path)
    path.with_name("open_clip_config.json").unlink()
    one_line(tmp_path, "BAAI's own layout, which is not served", "take EVA02-L-14/merged2b_s4b_b131k")


def test_names() -> None:
    for name, repo in (
        ("EVA02-B-16/merged2b_s8b_b131k", "eva02_base_patch16_clip_224.merged2b_s8b_b131k"),
        ("EVA02-L-14/merged2b_s4b_b131k", "eva02_large_patch14_clip_224.merged2b_s4b_b131k"),
        ("EVA02-L-14-336/merged2b_s6b_b61k", "eva02_large_patch14_clip_336.merged2b_s6b_b61k"),
    ):
        assert resolve(name).repo == f"timm/{repo}"
    with pytest.raises(BackboneError, match="Tags of EVA02-L-14: EVA02-L-14/merged2b_s4b_b131k"):
        resolve("EVA02-L-14")


@pytest.mark.parametrize("name", METHODS)
def test_every_method_runs(name: str, eva: Backbone) -> None:
    assert METHODS[name](eva, ["cat", "dog"]).logits(IMAGES).shape == (3, 2)


@pytest.mark.parametrize(("dtype", "most"), [("fp32", 1e-4), ("int8", 0.5)])
def test_exported_files_agree(dtype: str, most: float, eva: Backbone, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pictures = list(np.random.default_rng(0).integers(0, 256, (4, 48, 48, 3), dtype=np.uint8))
    classifier = FewShotClassifier("vpt", eva, shots=None, train_options={"epochs": 1})
    classifier.fit(pictures, ["cat", "dog", "cat", "cat"])
    written = export_onnx(classifier, tmp_path / "model.onnx", dtype=dtype)
    assert written.agreement.max_logit_difference < most  # of logits up to 55
