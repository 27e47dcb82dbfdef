"""The nearest prototype: means, distances, refusals."""

from typing import Any

import pytest
import torch

from daptune.errors import MethodError
from daptune.methods.prototype import Prototype, PrototypeConfig

from .conftest import NAMES, Pictures, make_pictures, uneven_pictures

CASES = [("euclidean", True), ("euclidean", False), ("cosine", True), ("cosine", False)]


def unit(f: list[float]) -> list[float]:
    length = sum(x * x for x in f) ** 0.5
    return [x / length for x in f]


@pytest.mark.parametrize(("metric", "normalize"), CASES)
@pytest.mark.parametrize("views", [0, 2])
def test_logits_are_the_written_out_distances(metric: str, normalize: bool, views: int, backbone: Any) -> None:
    train, test = uneven_pictures((2, 5, 1, 3)), make_pictures(len(NAMES), 1, seed=4)
    method = Prototype(backbone, NAMES, PrototypeConfig(metric=metric, normalize=normalize, views=views))
    method.before_fit(train)
    members: list[list[list[float]]] = [[] for _ in NAMES]
    for batches in [train.augmented_view(view) for view in range(views)] or [train.evaluation()]:
        for images, labels in batches:
            for f, label in zip(backbone.clip.encode_image(images).tolist(), labels.tolist(), strict=True):
                members[label].append(unit(f) if normalize else f)
    s = [[sum(column) / len(rows) for column in zip(*rows, strict=True)] for rows in members]
    torch.testing.assert_close(method.prototypes, torch.tensor(s), atol=1e-5, rtol=1e-5)
    scale, expected = method.scale.item(), []
    for f in backbone.clip.encode_image(test.images).tolist():
        if metric == "cosine":
            row = [scale * sum(a * b for a, b in zip(unit(f), unit(p), strict=True)) for p in s]
        else:
            g, factor = (unit(f), scale / 2) if normalize else (f, 1.0)
            row = [-factor * sum((a - b) ** 2 for a, b in zip(g, p, strict=True)) for p in s]
        expected.append(row)
    torch.testing.assert_close(method.logits(test.images), torch.tensor(expected), atol=1e-3, rtol=1e-4)


def test_unit_prototypes_make_euclidean_and_cosine_agree(backbone: Any, pictures: Pictures) -> None:
    pairs = [Prototype(backbone, NAMES, PrototypeConfig(metric=metric)) for metric in ("euclidean", "cosine")]
    for method in pairs:
        method.before_fit(Pictures(pictures.images[:4], pictures.labels[:4]))  # one image each: of length 1
    p, q = (method.logits(pictures.images).softmax(-1) for method in pairs)
    torch.testing.assert_close(p, q, atol=1e-4, rtol=1e-3)


def test_it_recognises_what_it_was_shown(backbone: Any) -> None:
    train, test = make_pictures(len(NAMES), 4, 0), make_pictures(len(NAMES), 8, 2)
    method = Prototype(backbone, NAMES)
    method.before_fit(train)
    assert (method.logits(test.images).argmax(-1) == test.labels).float().mean() > 0.9
    assert not method.trainable and set(method.state_dict()) == {"prototypes"} and method.parameter_count == 4 * 24


def test_refusals(backbone: Any, pictures: Pictures) -> None:
    method = Prototype(backbone, NAMES)
    with pytest.raises(MethodError, match="no text features"):
        method.text_features()
    with pytest.raises(MethodError, match="cannot take new class names"):
        method.with_classes(["dog"])
    with pytest.raises(MethodError, match="images of every class, found none of 'antirrhinum'"):
        method.before_fit(Pictures(pictures.images[:3], pictures.labels[:3]))
    with pytest.raises(MethodError, match="labels below 4, found 5"):
        method.before_fit(Pictures(pictures.images[:3], torch.tensor([0, 1, 5])))
    for options in ({"metric": "manhattan"}, {"views": -1}):
        with pytest.raises(MethodError, match="expected"):
            PrototypeConfig(**options)
