"""Tip-Adapter and Tip-Adapter-F: the cache, the search, sizes that the images decide, saving and resuming."""

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from daptune.adapter.store import load_adapter, make_record, save_adapter
from daptune.clip.preprocess import Preprocess
from daptune.errors import AdapterError, Interrupted, MethodError
from daptune.methods import METHODS, Method, make_config
from daptune.methods.tip_adapter import TipAdapter, TipAdapterConfig
from daptune.methods.tip_adapter_f import TipAdapterF, TipAdapterFConfig
from daptune.train import TrainConfig, fit_method

from .conftest import NAMES, Pictures, make_pictures

BOTH = ["tip_adapter", "tip_adapter_f"]
FEW = {"views": 2, "search_steps": (5, 4)}


def build(name: str, backbone: Any, **options: object) -> Any:
    return METHODS[name](backbone, NAMES, make_config(name, FEW | options))


def keys_by_hand(backbone: Any, pictures: Pictures, views: int) -> list[list[float]]:
    """METHODS B.3: the mean over passes of features as they come, made unit."""
    sums: list[list[float]] = []
    for view in range(views):
        rows = [
            row.tolist() for images, _ in pictures.augmented_view(view) for row in backbone.clip.encode_image(images)
        ]
        sums = [[a + b for a, b in zip(x, y, strict=True)] for x, y in zip(sums, rows, strict=True)] if sums else rows
    means = [[x / views for x in row] for row in sums]
    return [[x / math.sqrt(sum(v * v for v in row)) for x in row] for row in means]


def logits_by_hand(
    method: TipAdapter, images: Tensor, keys: list[list[float]], labels: list[int], alpha: float, beta: float
) -> list[list[float]]:
    z, w, scale = method.image_features(images).tolist(), method.text_features().tolist(), method.scale.item()
    dot = lambda a, b: sum(x * y for x, y in zip(a, b, strict=True))  # noqa: E731
    table = []
    for row in z:
        scores = [scale * dot(row, text) for text in w]
        for key, label in zip(keys, labels, strict=True):
            scores[label] += alpha * math.exp(-beta * (1 - dot(row, key)))
        table.append(scores)
    return table


@pytest.mark.parametrize("name", BOTH)
def test_logits_are_the_written_out_sums(name: str, backbone: Any, pictures: Pictures) -> None:
    method = build(name, backbone, alpha=2.5, beta=3.0)
    method.before_fit(pictures)
    keys = keys_by_hand(backbone, pictures, 2)
    torch.testing.assert_close(method.keys.detach(), torch.tensor(keys), atol=1e-5, rtol=1e-5)
    expected = logits_by_hand(method, pictures.images[:5], keys, pictures.labels.tolist(), 2.5, 3.0)
    torch.testing.assert_close(method.logits(pictures.images[:5]), torch.tensor(expected), atol=1e-4, rtol=1e-5)


def test_gradients_are_the_written_out_ones(backbone: Any, pictures: Pictures) -> None:
    """d CE / d k_i = sum_b (p - y)[b, label_i] alpha beta exp(-beta (1 - z_b k_i)) z_b / B."""
    method = build("tip_adapter_f", backbone, alpha=2.5, beta=3.0)
    method.before_fit(pictures)
    images, labels = pictures.images[:5], pictures.labels[:5]
    method.losses(images, labels)["total"].backward()
    z, p = method.image_features(images), method.logits(images).softmax(-1)
    expected = torch.zeros_like(method.keys)
    with torch.no_grad():
        for i, label in enumerate(pictures.labels.tolist()):
            for b in range(5):
                error = p[b, label] - float(labels[b] == label)
                expected[i] += error * 7.5 * torch.exp(-3 * (1 - z[b] @ method.keys[i])) * z[b] / 5
    torch.testing.assert_close(method.keys.grad, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", BOTH)
def test_without_a_cache_it_is_zero_shot(name: str, backbone: Any, pictures: Pictures) -> None:
    zero_shot = METHODS["zero_shot"](backbone, NAMES)
    found = build(name, backbone).logits(pictures.images)
    torch.testing.assert_close(found, zero_shot.logits(pictures.images))


def test_no_view_is_the_evaluation_transform(backbone: Any, pictures: Pictures) -> None:
    method = build("tip_adapter", backbone, views=0)
    method.before_fit(pictures)
    torch.testing.assert_close(method.keys, method.image_features(pictures.images))


def test_the_search_is_the_official_one(backbone: Any, pictures: Pictures) -> None:
    """METHODS B.3: beta outside, alpha inside, better only if more are right."""
    val = make_pictures(len(NAMES), 3, seed=5)
    method = build("tip_adapter", backbone, search_to=(9.0, 40.0), search_steps=(8, 7))
    method.before_fit(pictures, val)
    keys, labels = method.keys.tolist(), pictures.labels.tolist()
    best, expected = 0, (0.0, 0.0)
    for beta in [i * (9 - 0.1) / 8 + 0.1 for i in range(8)]:
        for alpha in [i * (40 - 0.1) / 7 + 0.1 for i in range(7)]:
            table = torch.tensor(logits_by_hand(method, val.images, keys, labels, alpha, beta))
            right = int((table.argmax(-1) == val.labels).sum())
            if right > best:
                best, expected = right, (alpha, beta)
    assert best > 0 and (method.alpha.item(), method.beta.item()) == pytest.approx(expected)


def test_without_validation_images_or_search_the_given_values_stay(backbone: Any, pictures: Pictures) -> None:
    val = make_pictures(len(NAMES), 2, seed=5)
    for options, held_out in (({}, None), ({"search": False}, val)):
        method = build("tip_adapter", backbone, alpha=0.7, beta=1.5, **options)
        method.before_fit(pictures, held_out)
        assert (method.alpha.item(), method.beta.item()) == pytest.approx((0.7, 1.5))


def test_the_learned_version_searches_when_training_is_over(backbone: Any, pictures: Pictures) -> None:
    val, options = make_pictures(len(NAMES), 3, seed=5), {"search_to": (9.0, 40.0), "search_steps": (8, 7)}
    method = build("tip_adapter_f", backbone, **options)
    method.before_fit(pictures, val)
    assert method.alpha.item() == pytest.approx(1.17)
    first = method.keys.detach().clone()
    fit_method(method, pictures, TrainConfig(epochs=2, lr=0.01), val=val)
    assert not torch.equal(method.keys, first) and not method.training
    free = build("tip_adapter", backbone, **options)
    free.before_fit(pictures)
    free.hold(method.keys.detach(), pictures.labels.float())
    free.search(val)
    assert (free.alpha, free.beta) == (method.alpha, method.beta)


def test_parameter_counts(vit_b_16: Any, backbone: Any, pictures: Pictures) -> None:
    learned = TipAdapterF(vit_b_16, [f"class {i}" for i in range(7)])
    learned.make_room({"keys": torch.empty(16 * 7, 512, device="meta"), "key_labels": torch.empty(16 * 7)})
    assert learned.parameter_count == 16 * 7 * 512 and learned.trainable
    free = build("tip_adapter", backbone)
    free.before_fit(pictures)
    assert free.parameter_count == 0 and not free.trainable


@pytest.mark.parametrize("name", BOTH)
def test_classes_may_differ_in_images_and_lack_them(name: str, backbone: Any, pictures: Pictures) -> None:
    few = Pictures(pictures.images[[0, 4, 1]], torch.tensor([0, 0, 1]))
    method = build(name, backbone)
    method.before_fit(few)
    assert method.keys.shape == (3, 24)
    expected = logits_by_hand(method, pictures.images[:2], method.keys.tolist(), [0, 0, 1], 1.17, 1.0)
    torch.testing.assert_close(method.logits(pictures.images[:2]), torch.tensor(expected), atol=1e-4, rtol=1e-5)
    with pytest.raises(MethodError, match="expected labels below 4, found 9"):
        method.before_fit(Pictures(pictures.images[:2], torch.tensor([0, 9])))


def record(method: Method) -> Any:
    backbone = method.backbone
    named = SimpleNamespace(
        name=backbone.name, sha256=backbone.sha256, precision="fp32", preprocess=Preprocess(32), about={}
    )
    return make_record(method, named)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", BOTH)
def test_adapters_hold_as_many_keys_as_there_were_images(
    name: str, backbone: Any, pictures: Pictures, tmp_path: Path
) -> None:
    method = build(name, backbone)
    fit_method(method, pictures, TrainConfig(epochs=1, lr=0.01), val=make_pictures(len(NAMES), 2, seed=5))
    save_adapter(tmp_path / "a", method, record(method))
    loaded = load_adapter(tmp_path / "a", backbone).method
    assert all(
        torch.equal(a, b) for a, b in zip(method.state_dict().values(), loaded.state_dict().values(), strict=True)
    )
    with torch.no_grad():
        assert torch.equal(loaded.logits(pictures.images), method.logits(pictures.images))


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("damage", ["width", "labels", "rank", "missing", "unknown"])
def test_loading_stays_strict(name: str, damage: str, backbone: Any, pictures: Pictures) -> None:
    method = build(name, backbone)
    method.before_fit(pictures)
    state = {key: tensor.clone() for key, tensor in method.state_dict().items()}
    if damage == "width":
        state["keys"] = state["keys"][:, 1:]
    elif damage == "labels":
        state["key_labels"] = state["key_labels"][1:]
    elif damage == "rank":
        state["keys"] = torch.tensor(1.0)
    elif damage == "missing":
        del state["keys"]
    else:
        state["other"] = torch.zeros(1)
    with pytest.raises(MethodError, match="expected shape"):
        build(name, backbone).load_state_dict(state)


def test_an_adapter_of_another_width_is_refused(backbone: Any, pictures: Pictures, tmp_path: Path) -> None:
    method = build("tip_adapter", backbone)
    method.before_fit(pictures)
    method.keys = method.keys[:, 1:]
    save_adapter(tmp_path / "a", method, record(method))
    with pytest.raises(AdapterError, match="keys should be"):
        load_adapter(tmp_path / "a", backbone)


def test_a_run_that_was_stopped_ends_in_the_same_bits(backbone: Any, pictures: Pictures, tmp_path: Path) -> None:
    config, val = TrainConfig(epochs=3, lr=0.01, checkpoint_seconds=0), make_pictures(len(NAMES), 2, seed=5)
    whole, stopped, resumed = (build("tip_adapter_f", backbone) for _ in range(3))
    fit_method(whole, pictures, config, val=val)
    asked = iter([False] * 4 + [True] * 9)
    with pytest.raises(Interrupted):
        fit_method(stopped, pictures, config, val=val, run_dir=tmp_path, stop=lambda: next(asked))
    fit_method(resumed, pictures, config, val=val, run_dir=tmp_path, resume=True)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
    again = build("tip_adapter_f", backbone)
    fit_method(again, pictures, config, val=val, run_dir=tmp_path, resume=True)  # it was finished
    assert torch.equal(again.keys, whole.keys) and torch.equal(again.alpha, whole.alpha)


@pytest.mark.parametrize(
    ("option", "value"),
    [("views", -1), ("alpha", -0.1), ("beta", -1.0), ("search_to", (0.1, 2.0)), ("search_steps", (0, 3)),
     ("search_steps", (3,))],
)  # fmt: skip
def test_options_are_checked(option: str, value: Any) -> None:
    with pytest.raises(MethodError, match=f"^{option}: expected"):
        replace(TipAdapterConfig(), **{option: value})
    assert TipAdapterFConfig(alpha=2) == TipAdapterFConfig(alpha=2.0)
