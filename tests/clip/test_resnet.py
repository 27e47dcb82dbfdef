"""The residual network against the same written out with batch norms, its checkpoints, and what it has and lacks."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from daptune.classifier import FewShotClassifier
from daptune.clip.backbone import Backbone, load_backbone
from daptune.clip.hub import resolve
from daptune.errors import BackboneError, MethodError
from daptune.export.onnx_file import export_onnx
from daptune.export.weights import export_weights
from daptune.methods import METHODS, make_config
from daptune.report.where import patch_relevance

from .made_up import write_archive
from .made_up_resnet import RESNET, make_tensors, openclip_config, write_openclip

IMAGES = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))
TOKENS = {"visual tokens", "visual tokens that join at a middle block", "attention matrices in the image tower"}


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    return make_tensors()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tensors: dict[str, Tensor]) -> Path:
    return write_openclip(tmp_path_factory.mktemp("resnet"), tensors)


@pytest.fixture(scope="module")
def resnet(folder: Path) -> Backbone:
    return load_backbone(folder, precision="fp32")


def written_out(tensors: dict[str, Tensor], images: Tensor) -> tuple[Tensor, Tensor]:
    """Features of the mean and of each place as queries (B, 1 + G, D), and of the value of each place (B, G, D), from
    the tensors of the file, with batch norms."""
    t = {name.removeprefix("visual."): tensor.double() for name, tensor in tensors.items()}

    def conv(x: Tensor, name: str, norm: str, **how: int) -> Tensor:
        x = F.conv2d(x, t[f"{name}.weight"], **how)
        statistics = (t[f"{norm}.{kind}"] for kind in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, *statistics, training=False, eps=1e-5)

    x = F.relu(conv(images.double(), "conv1", "bn1", stride=2, padding=1))
    for number in (2, 3):
        x = F.relu(conv(x, f"conv{number}", f"bn{number}", padding=1))
    x = F.avg_pool2d(x, 2)
    for stage, blocks in enumerate(RESNET.vision_stages, 1):
        for block in range(blocks):
            at, halves = f"layer{stage}.{block}", stage > 1 and block == 0
            y = F.relu(conv(x, f"{at}.conv1", f"{at}.bn1"))
            y = F.relu(conv(y, f"{at}.conv2", f"{at}.bn2", padding=1))
            y = conv(F.avg_pool2d(y, 2) if halves else y, f"{at}.conv3", f"{at}.bn3")
            if block == 0:
                x = conv(F.avg_pool2d(x, 2) if halves else x, f"{at}.downsample.0", f"{at}.downsample.1")
            x = F.relu(x + y)
    pool = {name.removeprefix("attnpool."): tensor for name, tensor in t.items() if name.startswith("attnpool.")}
    places = x.flatten(2).transpose(1, 2)
    places = torch.cat([places.mean(1, keepdim=True), places], 1) + pool["positional_embedding"]
    q, k, v = (F.linear(places, pool[f"{n}_proj.weight"], pool[f"{n}_proj.bias"]) for n in "qkv")
    heads = []
    for head in range(2):
        part = slice(64 * head, 64 * head + 64)
        heads.append((q[..., part] @ k[..., part].mT / 8).softmax(-1) @ v[..., part])
    last = pool["c_proj.weight"], pool["c_proj.bias"]
    return F.linear(torch.cat(heads, -1), *last), F.linear(v[:, 1:], *last)


def test_it_is_the_network_with_batch_norms(resnet: Backbone, tensors: dict[str, Tensor]) -> None:
    clip = resnet.clip
    expected, alone = written_out(tensors, IMAGES)
    assert clip.encode_image(IMAGES).dtype == torch.float32
    for found, wanted in (
        (clip.encode_image(IMAGES), expected[:, 0]),
        (clip.encode_image(IMAGES, patches=True), expected),
        (clip.visual.each_patch(IMAGES), alone),
    ):
        torch.testing.assert_close(found.double(), wanted, atol=1e-5, rtol=1e-5)
    pooled = clip.encode_image(IMAGES, projected=False)
    weight, bias = (tensors[f"visual.attnpool.c_proj.{kind}"] for kind in ("weight", "bias"))
    assert pooled.shape == (3, 128)
    torch.testing.assert_close(pooled @ weight.T + bias, clip.encode_image(IMAGES))
    torch.testing.assert_close(clip.visual.project(pooled, clip.visual.projection()), clip.encode_image(IMAGES))


def test_blocks_may_be_computed_anew_in_the_backward_pass(resnet: Backbone) -> None:
    gradients = []
    for recompute in (False, True):
        resnet.clip.visual.recompute = recompute
        images = IMAGES.clone().requires_grad_()
        gradients += torch.autograd.grad(resnet.clip.encode_image(images).square().sum(), images)
    resnet.clip.visual.recompute = False
    assert gradients[0].abs().max() > 0 and torch.equal(*gradients)


@pytest.mark.parametrize("precision", ["bf16", "fp16-faithful"])
def test_lower_precisions_are_near(precision: str, folder: Path, resnet: Backbone) -> None:
    lower = load_backbone(folder, precision=precision).clip
    assert lower.visual.conv1.weight.dtype == lower.visual.attnpool.v_proj.weight.dtype == lower.dtype != torch.float32
    found, exact = lower.encode_image(IMAGES), resnet.clip.encode_image(IMAGES)
    assert found.dtype == torch.float32 and not torch.equal(found, exact)
    assert F.cosine_similarity(found, exact).min() > 0.999


# --- checkpoints ------------------------------------------------------------------------------------------------------


def test_all_layouts_are_read(resnet: Backbone, tensors: dict[str, Tensor], tmp_path: Path) -> None:
    assert resnet.clip.config == RESNET and resnet.preprocess.size == 64 and resnet.preprocess.std == (0.25,) * 3
    torch.save(tensors, tmp_path / "RN.pt")
    save_file(tensors, tmp_path / "RN.safetensors")
    archive = write_archive(tmp_path / "archive.pt", tensors)
    for path in (tmp_path / "RN.pt", tmp_path / "RN.safetensors", archive):
        other = load_backbone(path, precision="fp32")
        assert other.clip.config == RESNET and other.preprocess.std != (0.25,) * 3
        assert torch.equal(other.clip.encode_image(IMAGES), resnet.clip.encode_image(IMAGES))


def test_names_of_the_hub_and_of_openai() -> None:
    for name in ("RN50", "RN101", "RN50x4", "RN50x16", "RN50x64"):
        source = resolve(name)
        assert source.name == f"{name}/openai" and source.activation == "quick_gelu"
        assert source.repo == f"timm/{name.lower().replace('rn', 'resnet')}_clip.openai"
    assert resolve("RN50-quickgelu/cc12m").repo == "timm/resnet50_clip.cc12m"


def bad(folder: Path, tensors: dict[str, Tensor], *words: str, **settings: object) -> None:
    """A folder of these tensors, with settings of the image tower, is refused in one line with these words."""
    write_openclip(folder, tensors)
    config = openclip_config()
    config["model_cfg"]["vision_cfg"].update(settings)
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(BackboneError) as caught:
        load_backbone(folder)
    message = str(caught.value)
    assert "\n" not in message and all(word in message for word in words), message


def test_files_that_are_not_whole(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    norm = "visual.layer2.1.bn2.running_var"
    without = {name: tensor for name, tensor in tensors.items() if name != norm}
    bad(tmp_path, without, "lacks visual.layer2.1.bn2.running_var")
    bad(tmp_path, without | {norm: torch.ones(3)}, "wrong shape", norm)
    bad(tmp_path, without | {norm: -torch.ones(8)}, "not finite", "layer2.1.conv2")
    places = "visual.attnpool.positional_embedding"
    bad(tmp_path, tensors | {places: torch.ones(4, 128)}, "3 places", "a square")
    bad(tmp_path, tensors | {places: torch.ones(1, 128)}, "0 places", "a square")
    bad(tmp_path, {n: t for n, t in tensors.items() if "layer3" not in n}, "lacks the blocks of visual.layer3")
    conv = "visual.conv1.weight"
    bad(tmp_path, tensors | {conv: torch.ones(2, 3, 3, 3, dtype=torch.int8)}, f"{conv} is not of a floating type")
    stem = "visual.layer1.0.conv1.weight"
    bad(tmp_path, tensors | {stem: torch.ones(6, 4, 1, 1)}, "width 128", "expected a square and 192")
    bad(tmp_path, {n: t for n, t in tensors.items() if "attnpool" not in n}, "lacks the tensor visual.attnpool")
    bad(tmp_path, {n: t for n, t in tensors.items() if n.startswith("visual.")}, "a vision tower alone")


def test_a_config_of_another_size(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    bad(tmp_path, tensors, "vision_stages (3, 4, 6, 3) (the weights have (1, 2, 1, 1))", layers=[3, 4, 6, 3])
    bad(tmp_path, tensors, "vision_width 2048 (the weights have 128)", width=64)
    bad(tmp_path, tensors, "image_size 224 (the weights have 64)", image_size=224)
    bad(tmp_path, tensors, "vision_stages 12", layers=12)


# --- what runs on it --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_a_method_runs_or_says_what_is_lacking(name: str, resnet: Backbone) -> None:
    resnet = replace(resnet, name="RN50")
    method = METHODS[name]
    lacking = sorted(method.needs & TOKENS)
    if not lacking:
        assert method(resnet, ["cat", "dog"]).logits(IMAGES).shape == (3, 2)
        return
    with pytest.raises(MethodError, match=f"^`{name}` needs {lacking[0]}; RN50 has none: use coop or tip_adapter_f.$"):
        method(resnet, ["cat", "dog"])


def test_visual_tokens_are_refused_by_the_tower(resnet: Backbone) -> None:
    for call in (
        lambda: resnet.clip.encode_image(IMAGES, torch.zeros(1, 2, 128)),
        lambda: resnet.clip.visual.joining(torch.zeros(1, 2, 128)),
        lambda: resnet.clip.visual.each_patch(IMAGES, torch.zeros(1, 2, 128)),
    ):
        with pytest.raises(BackboneError, match="no visual tokens"):
            call()


def test_lora_and_norms_of_the_text_alone_run(resnet: Backbone) -> None:
    lora, norms = (
        METHODS[name](resnet, ["cat", "dog"], make_config(name, {"encoder": "text"}))
        for name in ("clip_lora", "two_sfs")
    )
    assert lora.vision_lora is None and lora.text_lora is not None and lora.logits(IMAGES).shape == (3, 2)
    assert norms.vision_norms is None and norms.text_norms is not None and norms.logits(IMAGES).shape == (3, 2)


def test_plot_takes_each_place_as_a_query(resnet: Backbone, tensors: dict[str, Tensor]) -> None:
    plot = METHODS["plot"](resnet, ["cat", "dog"], make_config("plot", {"text_tokens": 2}))
    expected, _ = written_out(tensors, IMAGES)
    assert plot.encoded_size == 5 * 24
    sets, whole = plot.image_sets(IMAGES)
    torch.testing.assert_close(sets.double(), expected[:, 1:], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(whole.double(), expected[:, 0], atol=1e-5, rtol=1e-5)


def test_the_bias_behind_a_learned_projection_stays(
    resnet: Backbone, tensors: dict[str, Tensor], tmp_path: Path
) -> None:
    pictures = list(np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), dtype=np.uint8))
    classifier = FewShotClassifier("prolip", resnet, shots=None, train_options={"epochs": 1, "lr": 3.0})
    classifier.fit(pictures, ["cat", "dog", "cat", "dog", "dog", "dog"])
    prolip, clip = classifier.method_, resnet.clip
    matrix = prolip.visual_projection().detach()
    assert (matrix - tensors["visual.attnpool.c_proj.weight"].T).abs().max() > 0.01
    pooled = clip.encode_image(IMAGES, projected=False)
    expected = (pooled @ matrix + tensors["visual.attnpool.c_proj.bias"]).detach().numpy().astype(float)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    found = prolip.image_features(IMAGES).detach().numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    written = export_weights(classifier, tmp_path / "weights.npy")
    assert written.warning is None and len(written.paths) == 3
    np.testing.assert_allclose(np.load(written.paths[2]), matrix.numpy())


def test_the_report_takes_each_place_alone(resnet: Backbone, tensors: dict[str, Tensor]) -> None:
    method = METHODS["zero_shot"](resnet, ["cat", "dog", "sea"]).eval()
    _, alone = written_out(tensors, IMAGES[:1])
    z = alone[0] / alone[0].norm(dim=-1, keepdim=True)
    scores = float(torch.tensor(3.0).exp()) * z @ method.text_features().double().T
    found = patch_relevance(method, IMAGES[0], 1)
    assert found is not None and found.shape == (2, 2)
    np.testing.assert_allclose(found.flatten(), (scores[:, 1] - scores.mean(1)).numpy(), atol=1e-4)


def test_eight_bits_are_refused(resnet: Backbone, tmp_path: Path) -> None:
    pictures = list(np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8))
    classifier = FewShotClassifier("zero_shot", resnet).fit(pictures, ["cat", "dog"])
    with pytest.raises(MethodError, match="sees images by convolutions: choose fp16"):
        export_onnx(classifier, tmp_path / "model.onnx", dtype="int8")
