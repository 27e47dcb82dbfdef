"""Training on images that are encoded once gives what training on images gives."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from daptune.clip.backbone import Backbone, load_backbone
from daptune.data import ImageLoader, read_source
from daptune.data.sampling import Sampler, ViewSampler
from daptune.methods import METHODS, Method, make_config
from daptune.train import TrainConfig, features, fit_method
from daptune.train.features import EncodedImages, encoded_once

CLASSES = ("cat", "dog", "bird")
ON_FEATURES = [name for name, method in METHODS.items() if method.trains_on_features]


@pytest.fixture
def backbone() -> Backbone:
    return load_backbone("tiny", precision="fp32")


@pytest.fixture
def table(tmp_path: Path):
    rng = np.random.default_rng(0)
    for name in CLASSES:
        (tmp_path / name).mkdir()
        for number in range(3):
            Image.fromarray(rng.integers(0, 255, (40, 40, 3), np.uint8)).save(tmp_path / name / f"{number}.png")
    return read_source(tmp_path).train


def loader(table, backbone: Backbone, views: int | None = 2, *, augment: bool = True) -> ImageLoader:
    return ImageLoader(table, backbone.preprocess, 4, seed=3, augment=augment, shuffle=True, views=views, workers=0)


def build(name: str, table, backbone: Backbone) -> Method:
    return METHODS[name](backbone, table.class_names, make_config(name, {}))


def learned(name: str, table, backbone: Backbone) -> dict[str, Tensor]:
    method = build(name, table, backbone)
    # SGD: AdamW divides by the size of a gradient, so that the rounding of one that is almost 0 would be all of it; a
    # rate of which the logits of taskres do not make a rounding of 1e-7 in a feature a hundred times as much
    config = TrainConfig(epochs=4, optimizer="sgd", lr=0.02, views=2, batch_size=4)
    fit_method(method, loader(table, backbone), config, val=loader(table, backbone, augment=False))
    return method.state_dict()


def test_the_methods_with_a_frozen_image_tower_are_these() -> None:
    assert set(ON_FEATURES) >= {"coop", "cocoop", "kgcoop", "proda", "plot", "clip_adapter", "taskres", "tip_adapter_f"}
    assert set(ON_FEATURES) >= {"zs_lp", "clap", "prolip", "tcp", "mmrl"}
    assert not {"vpt", "coop_vpt", "dapt", "ivlp", "maple", "plot_pp", "vp", "upt", "mvlpt"} & set(ON_FEATURES)


@pytest.mark.parametrize("name", ON_FEATURES)
def test_the_same_is_learned_as_from_images(name: str, table, backbone: Backbone, monkeypatch) -> None:
    counts, encode, below = [], backbone.clip.encode_image, backbone.clip.visual.below
    monkeypatch.setattr(backbone.clip, "encode_image", lambda x, *a, **k: counts.append(len(x)) or encode(x, *a, **k))
    monkeypatch.setattr(backbone.clip.visual, "below", lambda x, block: counts.append(len(x)) or below(x, block))
    fast = learned(name, table, backbone)
    encoded = sum(counts)
    counts.clear()
    monkeypatch.setattr(features, "MOST_BYTES", 0)
    for key, slow in learned(name, table, backbone).items():
        torch.testing.assert_close(fast[key], slow, rtol=0, atol=1e-5)
    assert encoded < sum(counts)


CLOSED = {
    "linear_probe": 1,
    "tip_adapter": 10,
    "lp_pp": 1,
    "prototype": 1,
    "gda": 10,
}  # and the views that each makes of an image


@pytest.mark.parametrize("name", CLOSED)
def test_methods_without_steps_encode_each_view_once_too(name: str, table, backbone: Backbone, monkeypatch) -> None:
    """And what they learn does not depend on which images are encoded together."""
    counts, encode = [], backbone.clip.encode_image
    monkeypatch.setattr(backbone.clip, "encode_image", lambda x, *a, **k: counts.append(len(x)) or encode(x, *a, **k))
    found = []
    for size in (4, 1):
        method, counts[:] = build(name, table, backbone), []
        images = ImageLoader(table, backbone.preprocess, size, seed=3, augment=True, workers=0)
        plain = ImageLoader(table, backbone.preprocess, size, workers=0)
        fit_method(method, images, TrainConfig(), val=plain)
        assert sum(counts) == len(table) * (CLOSED[name] + method.uses_validation)
        found.append(method.state_dict())
    # Relative to the largest entry. The inverse of gda's covariance multiplies the last bits of the features, which
    # differ between products of one row and of four: to 1.3e-5 on an EPYC.
    atol = 1e-4 if name == "gda" else 1e-5
    for key, value in found[0].items():
        largest = value.abs().max().clamp(min=1)
        torch.testing.assert_close(value / largest, found[1][key] / largest, rtol=0, atol=atol)


def test_what_is_settled_at_the_end_takes_the_features_that_are_there(table, backbone: Backbone, monkeypatch) -> None:
    """Tip-Adapter-F searches on the validation images when its keys are learned: these are encoded once in all."""
    counts, encode = [], backbone.clip.encode_image
    monkeypatch.setattr(backbone.clip, "encode_image", lambda x, *a, **k: counts.append(len(x)) or encode(x, *a, **k))
    method = METHODS["tip_adapter_f"](backbone, table.class_names, make_config("tip_adapter_f", {"views": 1}))
    fit_method(
        method, loader(table, backbone), TrainConfig(epochs=4, views=2), val=loader(table, backbone, augment=False)
    )
    keys, views, validation = 1, 2, 1
    assert sum(counts) == len(table) * (keys + views + validation)


def test_multipliers_are_made_of_the_features_that_are_trained_on(table, backbone: Backbone, monkeypatch) -> None:
    """CLAP before its first step: two views that come back are all that is ever encoded, whole and in part."""
    counts, encode = [], backbone.clip.encode_image
    monkeypatch.setattr(backbone.clip, "encode_image", lambda x, *a, **k: counts.append(len(x)) or encode(x, *a, **k))
    method, images = build("clap", table, backbone), loader(table, backbone)
    fit_method(method, images, TrainConfig(epochs=4, views=2))
    assert sum(counts) == 2 * len(table)
    expected = [torch.zeros(3), 0]
    w = method.base_features() / method.base_features().norm(dim=-1, keepdim=True)
    for view in (0, 1):
        for x, y in images.training_view(view):
            with torch.no_grad():
                z = encode(x)
                chance = (method.scale * z / z.norm(dim=-1, keepdim=True) @ w.T).softmax(-1)
            for row, c in zip(chance, y.tolist(), strict=True):
                expected[0][c] += row[c] / 6  # three images in two views
    torch.testing.assert_close(method.multipliers, expected[0], atol=1e-5, rtol=1e-4)


def test_parts_have_the_views_of_the_whole(table, backbone: Backbone) -> None:
    whole = EncodedImages(loader(table, backbone), backbone.clip.encode_image, torch.device("cpu"))
    rows = np.array([1, 4, 8])
    part = features.EncodedPart(whole, rows, loader(table.subset(rows), backbone))
    for view in (0, 1):
        found = torch.cat([z for z, _ in part.training_view(view)])
        assert torch.equal(found, whole.encoded(view)[0][rows])


def test_each_view_is_encoded_once(table, backbone: Backbone) -> None:
    seen: list[int] = []

    def encode(images: Tensor) -> Tensor:
        seen.append(len(images))
        return backbone.clip.encode_image(images)

    images = loader(table, backbone)
    encoded = EncodedImages(images, encode, torch.device("cpu"))
    for epoch in range(5):
        for (z, y), (x, labels) in zip(encoded.epoch(epoch, 1), images.epoch(epoch, 1), strict=True):
            assert torch.equal(y, labels)
            torch.testing.assert_close(z, backbone.clip.encode_image(x), rtol=0, atol=1e-5)
    for (z, y), (x, labels) in zip(encoded.evaluation(), images.evaluation(), strict=True):
        assert torch.equal(y, labels)
        torch.testing.assert_close(z, backbone.clip.encode_image(x), rtol=0, atol=1e-5)
    assert sum(seen) == 3 * len(table)


def test_images_stay_where_features_would_not_do(table, backbone: Backbone, monkeypatch) -> None:
    coop, vpt = build("coop", table, backbone), build("vpt", table, backbone)
    fresh, returning = loader(table, backbone, None), loader(table, backbone)
    assert encoded_once(vpt, returning) is returning
    assert encoded_once(coop, fresh) is fresh
    encoded = encoded_once(coop, returning)
    assert isinstance(encoded, EncodedImages) and encoded_once(coop, encoded) is encoded
    assert isinstance(encoded_once(coop, loader(table, backbone, None, augment=False)), EncodedImages)
    plot = build("plot", table, backbone)
    assert plot.encoded_size > coop.encoded_size
    monkeypatch.setattr(features, "MOST_BYTES", 2 * len(table) * coop.encoded_size * 4)
    assert isinstance(encoded_once(coop, returning), EncodedImages) and encoded_once(plot, returning) is returning
    monkeypatch.setattr(features, "MOST_BYTES", 100)
    assert encoded_once(coop, returning) is returning


@pytest.mark.parametrize("sampling", ["shuffled", "balanced", "views"])
def test_draws_of_a_sampler_have_the_features_of_their_own_views(sampling: str, table, backbone: Backbone) -> None:
    uneven = table.subset([0, 1, 2, 3, 4, 6])
    plain = loader(uneven, backbone)
    if sampling == "views":
        plain.sampler = ViewSampler.over(6, 2, 4, seed=3)
    else:
        plain.sampler = Sampler.of(uneven.labels, sampling, None if sampling == "balanced" else 2, seed=3)
    encoded = EncodedImages(plain, backbone.clip.encode_image, torch.device("cpu"))
    for epoch in range(3):
        for (images, labels), (found, same) in zip(plain.epoch(epoch), encoded.epoch(epoch), strict=True):
            assert labels.tolist() == same.tolist()
            with torch.no_grad():
                torch.testing.assert_close(found, backbone.clip.encode_image(images), atol=1e-4, rtol=1e-4)


def test_images_of_which_a_run_draws_few_are_not_all_encoded(table, backbone: Backbone) -> None:
    """Nine images in two views are 18 to encode; an epoch draws 3 of them, one of each class."""
    method, plain = build("coop", table, backbone), loader(table, backbone)
    assert isinstance(encoded_once(method, plain, 1), EncodedImages)
    plain.sampler, plain.batch_size = Sampler.of(table.labels, "balanced", 1, seed=3), 3
    assert encoded_once(method, plain, 5) is plain
    assert isinstance(encoded_once(method, plain, 6), EncodedImages)
