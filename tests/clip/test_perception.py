"""The image tower of PE-Core against the same written out, its checkpoints in both layouts, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from daptune.classifier import FewShotClassifier
from daptune.clip.backbone import Backbone, load_backbone
from daptune.clip.blocks import Attention
from daptune.clip.hub import resolve
from daptune.clip.model import CLIPConfig
from daptune.errors import BackboneError, MethodError
from daptune.export.onnx_file import export_onnx
from daptune.methods import METHODS, make_config
from daptune.report.where import patch_relevance

from .made_up_trunk import BARE, PE, make_tensors, openclip_config, to_openclip, write_meta, write_openclip
from .written_out import image_state, layer, mix, norm, patches_of, turned

IMAGES = torch.randn(3, 3, 48, 48, generator=torch.Generator().manual_seed(1))
HELD = {"with a class token": PE, "without": BARE}


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    return make_tensors()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tensors: dict[str, Tensor]) -> Path:
    return write_openclip(tmp_path_factory.mktemp("pe"), tensors)


@pytest.fixture(scope="module")
def pe(folder: Path) -> Backbone:
    return load_backbone(folder, precision="fp32")


def one_line(path: Path, *words: str) -> None:
    with pytest.raises(BackboneError) as caught:
        load_backbone(path)
    message = str(caught.value)
    assert "\n" not in message and all(word in message for word in words), message


def head_of(x: Tensor, state: dict[str, Tensor]) -> Tensor:
    """The MAP head, of eight heads, and the projection: (L, W) -> (D,)."""
    weight, bias = (state[f"head.attn.in_proj_{kind}"].chunk(3) for kind in ("weight", "bias"))
    query = state["head.probe"][0] @ weight[0].T + bias[0]
    a = layer(mix(query, x @ weight[1].T + bias[1], x @ weight[2].T + bias[2], 8), state, "head.attn.out_proj")
    inner = F.gelu(layer(norm(a, state, "head.ln"), state, "head.mlp.c_fc"))
    z = a + layer(inner, state, "head.mlp.c_proj")
    return (z @ state["proj"] + state["proj_bias"])[0]


def written_out(
    tensors: dict[str, Tensor], config: CLIPConfig, image: Tensor, tokens: Tensor | None = None
) -> tuple[Tensor, int]:
    """Tokens behind the last norm (L, W) float64 of an image with visual tokens (J, P, W), and how many are its own."""
    state = image_state(tensors)
    side, first, heads = config.image_size // 16, int(config.class_token), config.vision_heads
    x = patches_of(image, state, side)
    x = torch.cat([state["class_embedding"][None], x]) if first else x
    x = norm(x + state["positional_embedding"], state, "ln_pre")
    own = len(x)
    for depth in range(config.vision_layers):
        if tokens is not None and depth < len(tokens):
            x = torch.cat([x[:own], tokens[depth].double()])
        block = f"transformer.resblocks.{depth}"
        weight, bias = (state[f"{block}.attn.in_proj_{kind}"].chunk(3) for kind in ("weight", "bias"))
        h = norm(x, state, f"{block}.ln_1")
        query, key, value = (h @ w.T + b for w, b in zip(weight, bias, strict=True))
        for g in range(side * side):
            for part in (query, key):
                heads_of = part[first + g].reshape(heads, -1)
                part[first + g] = torch.cat([turned(one, g % side + first, g // side + first) for one in heads_of])
        x = x + layer(mix(query, key, value, heads), state, f"{block}.attn.out_proj")
        x = x + layer(
            F.gelu(layer(norm(x, state, f"{block}.ln_2"), state, f"{block}.mlp.c_fc")), state, f"{block}.mlp.c_proj"
        )
    return norm(x, state, "ln_post"), own


@pytest.mark.parametrize("config", HELD.values(), ids=HELD)
def test_the_tower_is_what_was_written_out(config: CLIPConfig, tmp_path: Path) -> None:
    """Images with and without visual tokens, seen by the head or not, and the features of patches."""
    tensors = make_tensors(config, seed=5)
    clip = load_backbone(write_openclip(tmp_path, tensors, config), precision="fp32").clip
    state = image_state(tensors)
    tokens = torch.randn(2, 11, 192, generator=torch.Generator().manual_seed(2))  # more than there are patches
    plain, own = written_out(tensors, config, IMAGES[0])
    prompted, _ = written_out(tensors, config, IMAGES[0], tokens)
    places = [head_of(plain[g : g + 1], state) for g in range(int(config.class_token), own)]
    for found, expected in (
        (clip.encode_image(IMAGES[:1]), head_of(plain, state)),
        (clip.encode_image(IMAGES[:1], tokens), head_of(prompted, state)),
        (clip.encode_image(IMAGES[:1], tokens, pool_prompts=False), head_of(prompted[:own], state)),
        (clip.encode_image(IMAGES[:1], patches=True)[:, 1:], torch.stack(places)),
    ):
        torch.testing.assert_close(found[0].double(), expected, atol=1e-5, rtol=1e-5)


def test_low_rank_matrices_are_added_before_queries_and_keys_are_turned(
    pe: Backbone, tensors: dict[str, Tensor], tmp_path: Path
) -> None:
    """CLIP-LoRA on the tower, and the tower of weights to which its products were added."""
    lora = METHODS["clip_lora"](pe, ["cat", "dog"], make_config("clip_lora", {"encoder": "vision"})).eval()
    low, changed = lora.vision_lora, {name: tensor.clone() for name, tensor in tensors.items()}
    assert low is not None
    low.b.data.normal_(std=0.1, generator=torch.Generator().manual_seed(3))
    for j, depth in enumerate(low.layers):
        weight = changed[f"visual.transformer.resblocks.{depth}.attn.in_proj_weight"]
        for n, matrix in enumerate(low.matrices):
            place = slice("qkv".index(matrix) * 192, ("qkv".index(matrix) + 1) * 192)
            weight[place] += low.scale * low.b[j, n].detach() @ low.a[j, n].detach()
    merged = load_backbone(write_openclip(tmp_path, changed), precision="fp32").clip
    expected = F.normalize(merged.encode_image(IMAGES), dim=-1)
    torch.testing.assert_close(lora.image_features(IMAGES), expected, atol=1e-5, rtol=1e-4)
    assert (expected - F.normalize(pe.clip.encode_image(IMAGES), dim=-1)).abs().max() > 1e-2


@pytest.mark.parametrize("config", HELD.values(), ids=HELD)
def test_both_layouts_are_read(config: CLIPConfig, tmp_path: Path) -> None:
    tensors = make_tensors(config, seed=3)
    tensors["visual.proj_bias"] = torch.zeros(40)
    ours = load_backbone(write_openclip(tmp_path, tensors, config), precision="fp32")
    theirs = load_backbone(write_meta(tmp_path / "a" / "PE-Core.pt", tensors), precision="fp32")
    assert ours.clip.config == config
    assert theirs.clip.config == replace(config, vision_heads=3)  # 64 wide, in Meta's files
    for backbone in (ours, theirs):
        state = backbone.clip.state_dict()
        assert set(state) == set(tensors) and all(torch.equal(state[name], tensors[name]) for name in state)
        assert backbone.preprocess.to_dict() == {
            "size": 48, "mean": [0.5] * 3, "std": [0.5] * 3, "resize": "squash", "interpolation": "bilinear",
        }  # fmt: skip
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 90, 3), dtype=np.uint8))
    pixels = np.asarray(picture.resize((48, 48), Image.Resampling.BILINEAR), dtype=np.float64)
    np.testing.assert_allclose(ours.preprocess(picture).numpy(), pixels.transpose(2, 0, 1) / 127.5 - 1, atol=1e-6)


def test_heads_of_a_file_of_metas(tmp_path: Path) -> None:
    """Its widths alone say them: G/14 is 1536 wide and has 16."""
    wide = replace(BARE, vision_width=1536, vision_mlp=64, vision_layers=1, vocab_size=49408)
    found = load_backbone(write_meta(tmp_path / "PE-Core-G14-448.pt", make_tensors(wide)), precision="fp32")
    assert found.clip.config == wide


def test_what_open_clip_leaves_unsaid(folder: Path, tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    """A folder without a transform has that of PE-Core, and a text tower with QuickGELU is said apart."""
    content = openclip_config()
    del content["preprocess_cfg"]
    content["model_cfg"]["quick_gelu"] = True
    save_file(to_openclip(tensors), tmp_path / "open_clip_model.safetensors")
    (tmp_path / "open_clip_config.json").write_text(json.dumps(content))
    found, plain = load_backbone(tmp_path, precision="fp32"), load_backbone(folder, precision="fp32")
    assert found.preprocess == plain.preprocess
    assert found.clip.config == replace(PE, text_activation="quick_gelu")
    assert torch.equal(found.clip.encode_image(IMAGES), plain.clip.encode_image(IMAGES))
    ids = plain.tokenizer(["a photo of a cat"])
    assert (found.clip.encode_text(ids) - plain.clip.encode_text(ids)).abs().max() > 1e-3


def test_in_bf16_the_angles_stay_float32(folder: Path, pe: Backbone) -> None:
    low = load_backbone(folder, precision="bf16").clip
    rotary = next(module for module in low.visual.modules() if isinstance(module, Attention)).rotary
    assert rotary is not None and rotary.sin.dtype == torch.float32 and low.dtype == torch.bfloat16
    found, expected = (F.normalize(clip.encode_image(IMAGES), dim=-1) for clip in (low, pe.clip))
    assert ((found * expected).sum(-1) > 0.999).all()


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "setting", "word"),
    [
        ("vision_cfg", {"timm_pool": "avg"}, "vision_cfg.timm_pool = 'avg'"),
        ("vision_cfg", {"timm_proj": "linear"}, "timm_proj"),
        ("vision_cfg", {"timm_something": 1}, "timm_something"),
        ("vision_cfg", {"timm_model_name": "vit_pe_core_enormous_patch16_384"}, "timm's vit_pe_core_enormous"),
        ("vision_cfg", {"timm_model_name": "vit_pe_lang_large_patch14_448"}, "PE-Lang"),
        ("vision_cfg", {"timm_model_name": "vit_pe_core_base_patch16_224"}, "a multiple of 4, found 18 wide"),
        ("vision_cfg", {"image_size": 384}, "image_size 384 (the weights have 48)"),
        ("text_cfg", {"no_causal_mask": True}, "text_cfg.no_causal_mask"),
        ("text_cfg", {"width": 64}, "text_width 64"),
        ("text_cfg", {"layers": 24}, "text_layers 24 (the weights have 2)"),
        (None, {"embed_dim": 512}, "embed_dim 512 (the weights have 40)"),
        (None, {"init_logit_bias": -10}, "model_cfg.init_logit_bias"),
    ],
)
def test_other_settings(
    folder: Path, tmp_path: Path, tensors: dict[str, Tensor], part: str | None, setting: dict[str, object], word: str
) -> None:
    content = openclip_config()
    (content["model_cfg"][part] if part else content["model_cfg"]).update(setting)
    if setting.get("timm_model_name") == "vit_pe_core_base_patch16_224":
        tensors = make_tensors(replace(PE, vision_width=216, vision_heads=6))  # 12 heads of 18
    save_file(to_openclip(tensors), tmp_path / "open_clip_model.safetensors")
    (tmp_path / "open_clip_config.json").write_text(json.dumps(content))
    one_line(tmp_path, word)


def test_files_that_are_not_whole(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    path = tmp_path / "PE-Core.pt"
    write_meta(path, {name: t for name, t in tensors.items() if "head.mlp" not in name})
    one_line(path, "missing visual.head.mlp.c_fc.bias")
    write_meta(path, {name: t for name, t in tensors.items() if name != "visual.proj"})
    one_line(path, "lacks the tensor visual.proj")
    write_meta(path, {name: t for name, t in tensors.items() if name.startswith("visual.")})
    one_line(path, "a vision tower alone")
    write_meta(path, make_tensors(replace(BARE, vision_heads=3)) | {"visual.positional_embedding": torch.zeros(8, 192)})
    one_line(path, "8 patch positions, no square")
    many = torch.zeros(1 + 400**2, 1)
    write_meta(path, tensors | {"visual.positional_embedding": many})  # its angles would take many times the file
    one_line(path, "visual.positional_embedding should be 192 wide, found 1")
    write_meta(path, tensors | {"visual.transformer.resblocks.0.ls_1.gamma": torch.zeros(192)})
    one_line(path, "unexpected visual.transformer.resblocks.0.ls_1.gamma")
    theirs = to_openclip(tensors)
    del theirs["visual.trunk.attn_pool.kv.bias"]
    save_file(theirs, write_openclip(tmp_path / "b", tensors) / "open_clip_model.safetensors")
    one_line(tmp_path / "b", "lacks visual.trunk.attn_pool.kv.bias")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("hf:facebook/PE-Core-B16-224", "take PE-Core-B-16/meta, the same weights, or fetch the .pt"),
        ("hf-hub:facebook/PE-Core-L14-336", "take PE-Core-L-14-336/meta"),
        ("hf:facebook/PE-Core-G14-448", "take PE-Core-bigG-14-448/meta"),
        ("PE-Core-B-16", "Tags of PE-Core-B-16: PE-Core-B-16/meta"),
        ("PE-Core-B16-224", "is no name of a PE-Core that is known here; such are PE-Core-B-16/meta"),
        ("PE-Spatial-B16-512", "without a text tower"),
    ],
)
def test_names_that_say_what_to_take(name: str, words: str) -> None:
    with pytest.raises(BackboneError, match=words) as caught:
        resolve(name)
    assert "\n" not in str(caught.value)


def test_names() -> None:
    for size in ("T-16-384", "S-16-384", "B-16", "L-14-336", "bigG-14-448"):
        assert resolve(f"PE-Core-{size}/meta").repo == f"timm/PE-Core-{size}"
    source = resolve("hf-hub:timm/PE-Core-B-16@main")
    assert (source.name, source.repo, source.revision) == ("hf:timm/PE-Core-B-16@main", "timm/PE-Core-B-16", "main")


# --- what runs on it --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_a_method_runs_or_says_what_is_lacking(name: str, pe: Backbone) -> None:
    if name == "mmrl":
        with pytest.raises(MethodError, match=r"^`mmrl` needs visual tokens that join at a middle block; .* has none"):
            METHODS[name](pe, ["cat", "dog"])
        return
    assert METHODS[name](pe, ["cat", "dog"]).logits(IMAGES).shape == (3, 2)


def test_long_names_leave_less_room(pe: Backbone) -> None:
    """32 places: 16 learned ones leave 15 for a name and its end."""
    with pytest.raises(BackboneError, match="takes 17 tokens, but 15 of the backbone's 32"):
        METHODS["coop"](pe, ["cat", "a " * 15], make_config("coop", {"text_tokens": 16}))


def test_the_bias_behind_a_learned_projection_stays(pe: Backbone, tensors: dict[str, Tensor]) -> None:
    prolip = METHODS["prolip"](pe, ["cat", "dog"]).eval()
    pooled = pe.clip.encode_image(IMAGES, projected=False)
    expected = pooled @ tensors["visual.proj"] + tensors["visual.proj_bias"]
    torch.testing.assert_close(pe.clip.encode_image(IMAGES), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(prolip.image_features(IMAGES), F.normalize(expected, dim=-1), atol=1e-5, rtol=1e-5)


def test_the_report_shows_places(pe: Backbone, tensors: dict[str, Tensor]) -> None:
    method = METHODS["zero_shot"](pe, ["cat", "dog", "sea"]).eval()
    state = image_state(tensors)
    plain, _ = written_out(tensors, PE, IMAGES[0])
    z = F.normalize(torch.stack([head_of(plain[g : g + 1], state) for g in range(1, 10)]), dim=-1)
    scores = float(torch.tensor(4.0).exp()) * z @ method.text_features().double().T
    found = patch_relevance(method, IMAGES[0], 1)
    assert found is not None and found.shape == (3, 3)
    np.testing.assert_allclose(found.flatten(), (scores[:, 1] - scores.mean(1)).numpy(), atol=1e-3)


@pytest.mark.parametrize(("dtype", "most"), [("fp32", 1e-4), ("int8", 0.5)])
def test_exported_files_agree(dtype: str, most: float, pe: Backbone, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pictures = list(np.random.default_rng(0).integers(0, 256, (4, 48, 48, 3), dtype=np.uint8))
    classifier = FewShotClassifier("vpt", pe, shots=None, train_options={"epochs": 1})
    classifier.fit(pictures, ["cat", "dog", "cat", "cat"])
    written = export_onnx(classifier, tmp_path / "model.onnx", dtype=dtype)
    assert written.agreement.max_logit_difference < most  # of logits up to 55
