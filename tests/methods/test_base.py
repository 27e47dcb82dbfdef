"""What every method has in common: names, state, cache, device, errors."""

import copy
import logging
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from daptune.errors import MethodError
from daptune.methods import METHODS, MethodConfig, make_config
from daptune.methods.support import encode_batches

from .conftest import NAMES, MadeUp, Pictures


@dataclass
class Counted:
    """Counts the calls of a function."""

    function: Any
    calls: int = 0

    def __call__(self, *args: Any, **options: Any) -> Any:
        self.calls += 1
        return self.function(*args, **options)


def test_the_frozen_clip_is_no_submodule(backbone: Any) -> None:
    method = METHODS["dapt"](backbone, NAMES)
    assert set(method.state_dict()) == {"text_prompt", "vision_prompt"} == set(dict(method.named_parameters()))
    assert list(method.children()) == []


def test_methods_that_join_an_ensemble(backbone: Any) -> None:
    """All that learn by gradient from CLIP's features alone; not those that fit in closed form, change the image tower,
    or answer by the training images already."""
    joins = "coop vpt coop_vpt dapt cocoop kgcoop maple ivlp promptsrc proda upt mvlpt clip_adapter taskres zs_lp clap "
    joins += "tcp"
    built_in = [name for name in METHODS if METHODS[name].__module__.startswith("daptune.")]
    found = {name for name in built_in if METHODS[name](backbone, NAMES).joins_ensemble}
    assert found == set(joins.split())


def test_an_answer_without_an_ensemble_is_the_logits(backbone: Any, pictures: Pictures) -> None:
    for name in ("dapt", "vp", "zero_shot"):
        method = METHODS[name](backbone, NAMES).eval()
        with torch.no_grad():
            assert torch.equal(method.answer(pictures.images), method.logits(pictures.images))


def test_options_of_another_method_are_refused(backbone: Any) -> None:
    with pytest.raises(MethodError, match="dapt expected DAPTConfig options, found CoOpConfig"):
        METHODS["dapt"](backbone, NAMES, make_config("coop", {}))


def test_class_names_that_cannot_be_used_are_named(backbone: Any) -> None:
    with pytest.raises(MethodError, match="'cat' occurs twice"):
        METHODS["coop"](backbone, ["cat", "dog", "cat"])
    with pytest.raises(MethodError, match="expected at least 1 classes, found none"):
        METHODS["coop"](backbone, [])


def test_class_names_that_clip_cannot_tell_apart_are_logged(backbone: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Lists come from sources that were checked, from adapters, or are published."""
    names = ("sun_glasses", "Sun glasses", "cat")
    with caplog.at_level(logging.WARNING, "daptune"):
        assert METHODS["coop"](backbone, names).class_names == names
    assert "'sun_glasses' and 'Sun glasses'" in caplog.text


def test_new_class_names_are_checked_as_those_of_a_fit_are(backbone: Any) -> None:
    coop = METHODS["coop"](backbone, NAMES)
    with pytest.raises(MethodError, match="'Dog' and 'dog ' make the same prompt"):
        coop.with_classes(["Dog", "dog ", "car"])
    published = ("missile", "sunglasses", "missile_", "sunglasses_")  # ImageNet's, as `distinct_names` marks them
    assert coop.with_classes(published).class_names == published


def test_whether_new_classes_fit_is_said_in_one_place(backbone: Any) -> None:
    common, own = (make_config("coop", {"class_specific": each}) for each in (False, True))
    assert METHODS["coop"].takes_new_classes(common) and not METHODS["coop"].takes_new_classes(own)
    assert not METHODS["taskres"].takes_new_classes(make_config("taskres", {}))


def test_a_class_name_too_long_for_the_context_is_named(backbone: Any) -> None:
    long = "word " * 70
    with pytest.raises(ValueError, match="word word") as caught:
        METHODS["dapt"](backbone, ["cat", long])
    assert "\n" not in str(caught.value)
    fits = "word " * 57  # 1 SOS + 16 + 57 + "." + EOT = 76
    METHODS["dapt"](backbone, ["cat", fits])


def test_names_in_any_script_are_names(backbone: Any) -> None:
    names = ["кошка", "犬", "café", "😀", "قط", "a-b/c"]
    assert METHODS["coop"](backbone, names).text_features().shape == (6, 24)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"text_prompt": torch.zeros(4, 16)}, r"coop: tensor 'text_prompt' expected shape \(16, 16\), found \(4, 16\)"),
        ({}, r"coop: tensor 'text_prompt' expected shape \(16, 16\), found none"),
        (
            {"text_prompt": torch.zeros(16, 16), "other": torch.zeros(2)},
            r"coop: tensor 'other' expected shape none, found \(2,\)",
        ),
    ],
)
def test_loading_is_strict(backbone: Any, state: dict[str, Tensor], message: str) -> None:
    with pytest.raises(MethodError, match=message):
        METHODS["coop"](backbone, NAMES).load_state_dict(state)


def test_loading_less_strictly_still_checks_shapes(backbone: Any) -> None:
    method = METHODS["coop"](backbone, NAMES)
    method.load_state_dict({"other": torch.zeros(2)}, strict=False)
    with pytest.raises(MethodError, match="text_prompt"):
        method.load_state_dict({"text_prompt": torch.zeros(2)}, strict=False)


def test_the_seed_decides_and_the_global_generator_stays(backbone: Any) -> None:
    state = torch.get_rng_state()
    one, same, other = (METHODS["dapt"](backbone, NAMES, seed=s).state_dict() for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    for key in one:
        assert torch.equal(one[key], same[key]) and not torch.equal(one[key], other[key])


def test_text_features_are_computed_once_in_evaluation(backbone: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    method: Any = METHODS["coop"](backbone, NAMES).eval()
    counted = Counted(method.text_features)
    monkeypatch.setattr(method, "text_features", counted)
    with torch.no_grad():
        first = method.class_text_features()
        assert method.class_text_features() is first and counted.calls == 1
        method.text_prompt.add_(1)  # a step in place
        changed = method.class_text_features()
        assert counted.calls == 2 and not torch.equal(changed, first)
        method.load_state_dict(METHODS["coop"](backbone, NAMES).state_dict())
        torch.testing.assert_close(method.class_text_features(), first)
        method.train().eval()
        method.class_text_features()
        assert counted.calls == 4
        method.train()
        method.class_text_features()
        method.class_text_features()
        assert counted.calls == 6  # nothing is kept while training
    method.eval()
    with torch.inference_mode():
        method.class_text_features()
    assert method.class_text_features().requires_grad  # with gradients wanted, they are there


def test_an_optimizer_step_is_seen(backbone: Any) -> None:
    method = METHODS["coop"](backbone, NAMES).eval()
    for options in ({"foreach": True}, {"fused": True}):
        with torch.no_grad():
            before = method.class_text_features()
        optimizer = torch.optim.AdamW(method.parameters(), 0.1, **options)  # type: ignore[arg-type]
        method.text_features()[0, 0].backward()
        optimizer.step()
        with torch.no_grad():
            assert not torch.equal(method.class_text_features(), before)


def test_moving_takes_the_backbone_along(backbone: Any) -> None:
    method = METHODS["dapt"](backbone, NAMES).to("meta")
    assert method.clip.device.type == "meta" == next(method.parameters()).device.type


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_learned_tensors_stay_float32(backbone: Any, dtype: torch.dtype) -> None:
    with pytest.raises(MethodError, match="learned tensors stay float32"):
        METHODS["dapt"](backbone, NAMES).to(dtype)


def test_logits_are_the_scaled_cosines(backbone: Any, pictures: Pictures) -> None:
    method = METHODS["zero_shot"](backbone, NAMES)
    z, w = method.image_features(pictures.images[:2]), method.text_features()
    for b, image in enumerate(method(pictures.images[:2])):
        for c, value in enumerate(image):
            cosine = sum(float(i * j) for i, j in zip(z[b], w[c], strict=True))
            assert float(value) == pytest.approx(100 * cosine, abs=1e-3)


def test_no_images_is_an_error() -> None:
    with pytest.raises(MethodError, match="found none"):
        encode_batches(lambda images: images, [], torch.device("cpu"))


def test_a_method_prints_what_it_is(backbone: Any) -> None:
    assert "4 classes, 768 learned parameters" in repr(METHODS["dapt"](backbone, NAMES))
    assert METHODS["zero_shot"].config_class() is not None and issubclass(METHODS["dapt"].config_class, MethodConfig)


def test_a_copy_learns_on_its_own(backbone: MadeUp) -> None:
    method: Any = METHODS["coop"](backbone, NAMES)  # type: ignore[arg-type]
    twin = copy.deepcopy(method)
    with torch.no_grad():
        twin.text_prompt.add_(1)
    assert not torch.equal(twin.text_prompt, method.text_prompt)


def test_the_text_tower_runs_once_for_the_batches_of_a_step(backbone: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    method = METHODS["coop"](backbone, NAMES).train()
    counted = Counted(method.text_features)
    monkeypatch.setattr(method, "text_features", counted)
    images, labels = torch.randn(8, 3, 32, 32), torch.arange(8) % len(NAMES)
    with method.text_features_once():
        for part in (slice(0, 4), slice(4, 8)):
            method.losses(images[part], labels[part])["total"].backward()
        assert counted.calls == 1 and method.text_prompt.grad is None
    assert method.text_prompt.grad.any()
    method.losses(images, labels)
    assert counted.calls == 2


def test_nothing_goes_back_when_a_batch_of_the_step_fails(backbone: Any) -> None:
    method = METHODS["coop"](backbone, NAMES).train()
    with pytest.raises(RuntimeError, match="stop"), method.text_features_once():
        method.losses(torch.randn(4, 3, 32, 32), torch.arange(4))["total"].backward()
        raise RuntimeError("stop")
    assert method.text_prompt.grad is None and method.class_text_features().requires_grad
