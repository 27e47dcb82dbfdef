"""What every method must do, on a made-up backbone and on the embedded one. A new method is in here by itself."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import daptune
from daptune.adapter.store import make_record, save_adapter
from daptune.classifier import FewShotClassifier, load
from daptune.clip.model import FAMILIES
from daptune.errors import MethodError
from daptune.methods import METHODS, Method, make_config
from daptune.train import TrainConfig, fit_method

from ..clip import made_up_resnet, made_up_siglip, made_up_trunk
from .conftest import NAMES, Pictures, make_pictures

VARIANTS: dict[str, list[dict[str, object]]] = {
    "zero_shot": [{"ensemble": True}],
    "linear_probe": [{"features": "pre_projection", "normalize": True, "refit": True}],
    "coop": [{"class_specific": True}, {"class_position": "middle"}, {"context_init": "a photo of a"}],
    "vpt": [{"vision_depth": 1}, {"vision_position": "append", "vision_depth": 2}],
    "dapt": [{"inter_weight": 0}, {"intra_weight": 0}, {"prototype_views": 2, "class_specific": True}],
    "kgcoop": [{"class_specific": True, "ensemble": True}],
    "cocoop": [{"context_init": "", "text_tokens": 2}],
    "ivlp": [{"text_depth": 1, "vision_depth": 1}],
    "maple": [{"prompt_depth": 1}],
    "clip_lora": [
        {"encoder": "text", "rank": 4},
        {"encoder": "vision", "layers": "top3", "matrices": ["v", "o"]},
    ],
    "promptsrc": [{"text_depth": 1, "vision_depth": 1}, {"average": False, "text_weight": 0}],
    "proda": [{"prompts": 4, "class_position": "end"}],
    "upt": [{"official_attention": True, "vision_depth": 1}, {"class_specific": True}],
    "mvlpt": [{"network": False, "class_position": "middle"}],
    "vp": [{"prompt_shape": "fixed_patch"}],
    "plot": [{"prompts": 1, "global_weight": 0}, {"text_tokens": 2, "regularization": 0.05}],
    "plot_pp": [
        {"visual_share": 0, "vision_sets": 1, "phrases": ["a photo of a"]},
        {"official_phrases": True, "phrases": ["a photo of a", "this is", "this is centered photo of"]},
    ],
    "gda": [{"new_classes": True, "official_covariance": True}, {"views": 1, "official_count": True}],
    "zs_lp": [{"official_base": True}],
    "clap": [{"official_base": True, "multiplier_views": 0}],
    "prolip": [{"per_shot": False}],
    "tcp": [{"context_init": "a photo of a", "first_block": 2}],
    "mmrl": [{"random_projection": False, "first_block": 3, "width": 8}],
    "two_sfs": [{"encoder": "text", "first_stage": 0.4}, {"encoder": "vision", "template": "{} texture."}],
}
"""Options beside the defaults that go through the matrix too."""

CASES = [(name, options) for name in METHODS for options in [{}, *VARIANTS.get(name, [])]]
LIGHT: dict[str, dict[str, object]] = {"proda": {"prompts": 4}, "mmrl": {"width": 32}}
"""Options with which a method takes less of the matrix's time; the 32 prompts of ProDA took most of it."""
OF_THE_SET = {"mmrl"}
"""Methods whose scores of a class depend on whether all classes are those of the fit; their own tests say how."""
BY_CLASS = {"two_sfs"}
"""Methods that take other class names though they learn a row for each class; their own tests say what they keep."""
FOLDERS = {
    "siglip": made_up_siglip.write_transformers,
    "resnet": made_up_resnet.write_openclip,
    "pe": made_up_trunk.write_openclip,
    "eva": lambda folder, tensors: made_up_trunk.write_openclip(folder, tensors, made_up_trunk.EVA),
}
TRAINED = ("coop", "dapt", "maple", "plot", "tip_adapter_f", "clip_lora", "linear_probe", "prolip")
"""One method of each kind also goes through the matrix on a trained backbone, on which test_demo.py trains them all."""
FEW = {
    "pe": ("dapt", "maple", "plot", "clip_lora", "prolip", "two_sfs"),
    "eva": ("dapt", "plot", "clip_lora", "mmrl", "two_sfs"),
}
"""Families that differ from another in the image tower alone: methods that reach into it."""
RUNS = [("made-up", *case) for case in CASES] + [("tiny", name, LIGHT.get(name, {})) for name in TRAINED]
RUNS += [
    (family, name, LIGHT.get(name, {}))
    for family in FOLDERS
    for name, method in METHODS.items()
    if name in FEW.get(family, METHODS)
    if not method.needs - frozenset().union(*(tower.has for tower in FAMILIES[family]))
]


def label(value: object) -> str:
    """An id for pytest."""
    if isinstance(value, dict):
        return ",".join(f"{key}={item}" for key, item in value.items()) or "default"
    return str(value)


each_method = pytest.mark.parametrize(("name", "options"), CASES, ids=label)
each_method_on_each_backbone = pytest.mark.parametrize(
    ("frozen", "name", "options"), RUNS, ids=label, indirect=["frozen"]
)


@pytest.fixture(scope="session")
def families(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Backbones of other families by name."""
    tensors = {
        "siglip": made_up_siglip.make_tensors,
        "resnet": made_up_resnet.make_tensors,
        "pe": made_up_trunk.make_tensors,
        "eva": lambda: made_up_trunk.make_tensors(made_up_trunk.EVA),
    }
    return {
        name: daptune.load_backbone(write(tmp_path_factory.mktemp(name), tensors[name]()), precision="fp32")
        for name, write in FOLDERS.items()
    }


@pytest.fixture
def frozen(request: pytest.FixtureRequest) -> Any:
    """The backbone of a run."""
    if request.param == "made-up":
        return request.getfixturevalue("backbone")
    if request.param in FOLDERS:
        return request.getfixturevalue("families")[request.param]
    if not (Path(daptune.__file__).parent / "clip" / "tiny").is_dir():
        pytest.skip("the embedded backbone is not there yet")
    return daptune.load_backbone("tiny")


def build(name: str, options: dict[str, object], frozen: Any, seed: int = 1) -> Method:
    return METHODS[name](frozen, NAMES, make_config(name, options), seed=seed)


def shown(frozen: Any, shots: int = 3, seed: int = 0) -> Pictures:
    return make_pictures(len(NAMES), shots, seed, side=frozen.clip.config.image_size)


def bits(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode() + tensor.detach().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def fitted(name: str, options: dict[str, object], frozen: Any, seed: int = 1) -> Method:
    method = build(name, options, frozen, seed)
    config = TrainConfig(epochs=2, lr=0.01, optimizer="adamw", warmup_epochs=0, seed=seed)
    fit_method(method, shown(frozen), config, val=shown(frozen, 2, 5))
    return method


@each_method
def test_losses_fall_under_plain_steps(name: str, options: dict[str, object], backbone: Any) -> None:
    method, pictures = build(name, options, backbone).train(), shown(backbone)
    method.before_fit(pictures)
    method.after_epoch(1, 1)  # what learns in stages is then in the last one
    if not method.trainable:
        assert not list(method.parameters())
        return
    assert method.parameter_count > 0
    optimizer = torch.optim.AdamW(method.parameters(), 0.01)
    values, reached = [], set()  # the gradient of a factor is 0 while the other is
    for turn in range(8):
        method.stage = turn * (1 + len(method.stages)) // 8
        losses = method.losses(pictures.images, pictures.labels)
        assert {"cross_entropy", "total"} <= set(losses) and all(x.ndim == 0 for x in losses.values())
        values.append(losses["total"].item())
        optimizer.zero_grad()
        losses["total"].backward()
        for key, parameter in method.named_parameters():
            assert method.stages if parameter.grad is None else parameter.grad.isfinite().all(), key
            reached |= {key} if parameter.grad is not None and parameter.grad.any() else set()
        optimizer.step()
    assert reached == set(dict(method.named_parameters()))
    assert values[-1] < values[0]


@each_method_on_each_backbone
def test_features_and_logits_have_their_shapes(name: str, options: dict[str, object], frozen: Any) -> None:
    method, images = build(name, options, frozen).eval(), shown(frozen).images[:3]
    with torch.no_grad():
        assert method.logits(images).shape == (3, len(NAMES)) == method(images[:3]).shape
        z = method.image_features(images)
        assert z.shape == (3, frozen.clip.config.embed_dim) and z.dtype == torch.float32
        torch.testing.assert_close(z.norm(dim=-1), torch.ones(3))
        torch.testing.assert_close(method.logits(images[:1]), method.logits(images)[:1], atol=1e-3, rtol=1e-4)
        try:
            w = method.text_features()
        except MethodError:
            return
        assert w.shape == (len(NAMES), frozen.clip.config.embed_dim)
        torch.testing.assert_close(w.norm(dim=-1), torch.ones(len(NAMES)))


@each_method
def test_what_was_learned_is_all_that_is_needed(name: str, options: dict[str, object], backbone: Any) -> None:
    method, images = fitted(name, options, backbone), shown(backbone, 2, 7).images
    state = {key: tensor.clone() for key, tensor in method.state_dict().items()}
    assert all(tensor.dtype == torch.float32 for tensor in state.values())
    again = build(name, options, backbone, seed=2).eval()
    again.load_state_dict(state)
    assert bits(again.state_dict()) == bits(state)
    with torch.no_grad():
        assert torch.equal(again.logits(images), method.logits(images))


@each_method_on_each_backbone
def test_fitting_is_decided_by_the_seed_and_leaves_clip_untouched(
    name: str, options: dict[str, object], frozen: Any
) -> None:
    before = bits(frozen.clip.state_dict())
    first, second = (fitted(name, options, frozen) for _ in range(2))
    assert bits(first.state_dict()) == bits(second.state_dict())
    assert bits(frozen.clip.state_dict()) == before
    assert not any(p.requires_grad or p.grad is not None for p in frozen.clip.parameters())
    assert not frozen.clip.training


@each_method_on_each_backbone
def test_new_class_names_or_a_clear_refusal(name: str, options: dict[str, object], frozen: Any) -> None:
    method = fitted(name, options, frozen)
    if not method.takes_new_classes(method.config):
        with pytest.raises(MethodError, match=f"^{name} learned .* cannot take new class names"):
            method.with_classes(["dog", "horse"])
        return
    other = method.with_classes(["dog", NAMES[0]])
    assert name in BY_CLASS or bits(other.state_dict()) == bits(method.state_dict())
    assert other.class_names == ("dog", NAMES[0])
    assert other.training == method.training
    if name in OF_THE_SET:
        return
    images = shown(frozen).images[:2]
    with torch.no_grad():
        torch.testing.assert_close(other.logits(images)[:, 1], method.logits(images)[:, 0], atol=1e-3, rtol=1e-4)


@each_method
def test_it_works_in_bf16(name: str, options: dict[str, object], backbone: Any) -> None:
    pictures = shown(backbone)
    with torch.no_grad():
        exact = build(name, options, backbone).logits(pictures.images)
    backbone.clip.set_precision("bf16")
    method = build(name, options, backbone)
    method.before_fit(pictures)
    method.after_epoch(1, 1)
    for stage in range(1 + len(method.stages)):
        method.stage = stage
        losses = method.losses(pictures.images, pictures.labels)
        assert all(x.dtype == torch.float32 and x.isfinite() for x in losses.values())
        if method.trainable:
            losses["total"].backward()
    if method.trainable:
        with torch.no_grad():
            torch.testing.assert_close(method.logits(pictures.images), exact, atol=6, rtol=0)
    for parameter in method.parameters():
        assert parameter.dtype == torch.float32 and parameter.grad is not None and parameter.grad.isfinite().all()


@each_method
def test_batches_of_one_step_share_the_text_and_blocks_may_be_computed_anew(
    name: str, options: dict[str, object], backbone: Any
) -> None:
    options = options | ({"dropout": 0.0} if name == "clip_lora" else {})  # its draws would be fewer
    method, pictures = build(name, options, backbone).train(), shown(backbone)
    method.before_fit(pictures)
    if not method.trainable:
        return

    def gradients() -> list[Tensor]:
        method.zero_grad()
        torch.manual_seed(0)
        for images, labels in pictures.epoch(0):
            method.losses(images, labels)["total"].backward()
        return [p.grad.clone() for p in method.parameters() if p.grad is not None]

    expected = gradients()
    with method.text_features_once():
        shared = gradients()
    shared = [p.grad.clone() for p in method.parameters() if p.grad is not None]  # with what the end has added
    backbone.clip.visual.recompute = True
    for found in (shared, gradients()):
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, atol=1e-5 * max(1.0, float(b.abs().max())), rtol=1e-4)


@pytest.mark.parametrize("lost", sorted({lack for method in METHODS.values() for lack in method.needs}))
@each_method
def test_it_runs_where_the_towers_have_what_it_needs(
    name: str, options: dict[str, object], lost: str, backbone: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tower that has all but one."""
    for tower in (backbone.clip.visual, backbone.clip.text):
        monkeypatch.setattr(tower, "has", tower.has - {lost})
    config = make_config(name, options)
    if lost not in METHODS[name].needs_with(config):
        assert not METHODS[name].lacking(backbone.clip, config)
        build(name, options, backbone)
        return
    with pytest.raises(MethodError, match=f"^`{name}` needs {lost}; made-up has none: use coop or tip_adapter_f.$"):
        build(name, options, backbone)


@each_method
def test_one_class_is_no_special_case(name: str, options: dict[str, object], backbone: Any) -> None:
    method = METHODS[name](backbone, NAMES[:1], make_config(name, options))
    assert method.logits(shown(backbone).images[:2]).shape == (2, 1)


class Watched(Pictures):
    """Pictures that remember whether they were looked at."""

    seen = False

    def evaluation(self) -> Iterator[tuple[Tensor, Tensor]]:
        self.seen = True
        yield from super().evaluation()


@pytest.mark.parametrize("name", METHODS)
def test_whether_validation_images_are_looked_at_is_said(name: str, backbone: Any) -> None:
    method, known, other = build(name, {}, backbone), shown(backbone), shown(backbone, 2, 5)
    held_out = Watched(other.images, other.labels)
    method.before_fit(known, held_out)
    method.after_fit(known, held_out)
    assert held_out.seen == method.uses_validation


@pytest.fixture(scope="module")
def usual(made_up_backbone: str) -> Any:
    """A whole backbone, which adapters can name."""
    return daptune.load_backbone(made_up_backbone, precision="fp32")


@pytest.mark.parametrize("name", METHODS)
def test_the_ensemble_is_there_stored_and_free(
    name: str, usual: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fitted on 3, 1, 2 and 4 images of four classes: the answer is finite, comes back from the adapter bit for bit,
    takes one pass of the image tower and, beside names and options, 4 C D + 4 C bytes."""
    labels = np.repeat(NAMES, [3, 1, 2, 4])
    images = np.random.default_rng(0).integers(0, 256, (13, 32, 32, 3), dtype=np.uint8)
    classifier = FewShotClassifier(name, usual, shots=None, train_options={"epochs": 1, "batch_size": 4})
    classifier.fit(list(images[:10]), list(labels))
    method = classifier.method_
    assert (method.ensemble is not None) == method.joins_ensemble == bool(classifier.record_.ensemble)
    found = classifier.predict_proba(list(images))
    assert np.isfinite(found).all() and found.shape == (13, 4)
    folder = classifier.save(tmp_path / "a")
    again = load(folder, usual)
    np.testing.assert_array_equal(again.predict_proba(list(images)), found)
    if method.ensemble is None:
        return
    assert (again.method_.ensemble.mix, again.ensemble) == (method.ensemble.mix, "auto")
    passes: list[int] = []
    encode = usual.clip.encode_image
    pixels = torch.stack([usual.preprocess(Image.fromarray(image)) for image in images])
    with monkeypatch.context() as patch, torch.no_grad():
        patch.setattr(usual.clip, "encode_image", lambda *a, **o: passes.append(len(a[0])) or encode(*a, **o))
        scores = method.eval().answer(pixels)
    assert passes == [13]
    with torch.no_grad():
        of_features = method.answer(method.encode(pixels))  # as the server asks
    np.testing.assert_allclose(scores.softmax(-1).numpy(), found, atol=1e-5)
    torch.testing.assert_close(of_features, scores)
    method.ensemble = None
    plain = save_adapter(tmp_path / "b", method, make_record(method, usual))
    sizes = [(path / "adapter.safetensors").stat().st_size for path in (folder, plain)]
    headers = [int.from_bytes((path / "adapter.safetensors").read_bytes()[:8], "little") for path in (folder, plain)]
    classes, width = len(NAMES), usual.clip.config.embed_dim
    assert sizes[0] - sizes[1] == 4 * classes * width + 4 * classes + headers[0] - headers[1]
    assert headers[0] - headers[1] < 300
