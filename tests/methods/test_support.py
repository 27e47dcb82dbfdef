"""Features of a support set and sums over its classes, against plain loops on classes of different sizes."""

from typing import Any

import numpy as np
import pytest
import torch

from daptune.errors import MethodError
from daptune.methods import METHODS
from daptune.methods.support import (
    check_labels,
    class_means,
    class_sums,
    double,
    each_view,
    one_hot,
    stacked_views,
    view_features,
)

from .conftest import NAMES, Pictures


def encoded(backbone: Any, pictures: Pictures, views: int, *, unit: bool) -> np.ndarray:
    """The mean over views of each image's feature (n, D), one image at a time and in numpy."""
    sets = [pictures.augmented_view(view) for view in range(views)] or [pictures.evaluation()]
    total: Any = 0
    for batches in sets:
        rows = []
        for image in torch.cat([images for images, _ in batches]):
            feature = backbone.clip.encode_image(image[None])[0].detach().double().numpy()
            rows.append(feature / np.sqrt((feature**2).sum()) if unit else feature)
        total = total + np.array(rows)
    return total / len(sets)


@pytest.mark.parametrize("views", [0, 1, 3])
@pytest.mark.parametrize("unit", [True, False])
def test_features_are_means_over_views(views: int, unit: bool, backbone: Any, uneven: Pictures) -> None:
    found, labels = view_features(backbone.clip, uneven, views, unit=unit)
    assert torch.equal(labels, uneven.labels) and not found.requires_grad
    np.testing.assert_allclose(found.numpy(), encoded(backbone, uneven, views, unit=unit), atol=1e-5, rtol=1e-4)


class Encoded(Pictures):
    """Batches of features (b, 2) in place of images; the second view turns them by 90 degrees and doubles them."""

    ROWS = torch.tensor([[3.0, 4.0], [0.0, 2.0], [6.0, 8.0]])

    def evaluation(self) -> Any:
        yield from zip(self.ROWS.split(2), torch.tensor([1, 0, 1]).split(2), strict=True)

    def augmented_view(self, view: int) -> Any:
        rows = self.ROWS if view == 0 else torch.stack([-2 * self.ROWS[:, 1], 2 * self.ROWS[:, 0]], dim=1)
        yield from zip(rows.split(2), torch.tensor([1, 0, 1]).split(2), strict=True)


@pytest.mark.parametrize(
    ("views", "unit", "expected"),
    [
        (0, False, [[3, 4], [0, 2], [6, 8]]),
        (0, True, [[0.6, 0.8], [0, 1], [0.6, 0.8]]),
        (2, False, [[-2.5, 5], [-2, 1], [-5, 10]]),
        (2, True, [[-0.1, 0.7], [-0.5, 0.5], [-0.1, 0.7]]),
    ],
)
def test_batches_of_features_are_taken_as_they_are(
    views: int, unit: bool, expected: list[list[float]], backbone: Any, uneven: Pictures
) -> None:
    """The rows (3, 4), (0, 2), (6, 8), and (-8, 6), (-4, 0), (-16, 12) in the second view."""
    found, labels = view_features(backbone.clip, Encoded(uneven.images, uneven.labels), views, unit=unit)
    assert labels.tolist() == [1, 0, 1]
    np.testing.assert_allclose(found.numpy(), np.array(expected), atol=1e-6)


@pytest.mark.parametrize("views", [0, 1, 3])
@pytest.mark.parametrize("unit", [True, False])
def test_views_are_kept_apart(views: int, unit: bool, backbone: Any, uneven: Pictures) -> None:
    found, labels = stacked_views(backbone.clip, uneven, views, unit=unit)
    assert torch.equal(labels, uneven.labels) and len(found) == max(views, 1)
    for view, of_view in enumerate(found):
        batches = uneven.augmented_view(view) if views else uneven.evaluation()
        rows = torch.cat([backbone.clip.encode_image(images) for images, _ in batches]).double().numpy()
        expected = rows / np.sqrt((rows**2).sum(axis=1, keepdims=True)) if unit else rows
        np.testing.assert_allclose(of_view.numpy(), expected, atol=1e-5, rtol=1e-4)


class Seen(Encoded):
    """Three views that training returns to; the pass is the first number of every row."""

    def __init__(self, like: Pictures, *, augment: bool, views: int | None) -> None:
        super().__init__(like.images, like.labels)
        self.augment, self.views = augment, views

    def evaluation(self) -> Any:
        yield self.of(-1)

    def augmented_view(self, view: int) -> Any:
        yield self.of(view)

    def training_view(self, view: int) -> Any:
        yield self.of(100 + view)

    def of(self, number: int) -> Any:
        return torch.tensor([[number, 5.0], [number, 7.0]]), torch.tensor([1, 0])


@pytest.mark.parametrize(
    ("as_trained", "augment", "own", "asked", "passes"),
    [
        (None, True, 3, 2, [0, 1]),  # by default views of its own
        (False, True, 3, 2, [0, 1]),
        (True, True, 3, 2, [100, 101, 102]),
        (True, True, 3, 0, [100, 101, 102]),
        (True, True, None, 2, [0, 1]),  # training never returns to a view
        (True, False, 3, 2, [-1]),  # training sees plain images
        (True, False, None, 2, [-1]),
        (False, False, 3, 2, [0, 1]),
        (False, True, None, 0, [-1]),
    ],
)
def test_which_views_are_taken(
    as_trained: bool | None,
    augment: bool,
    own: int | None,
    asked: int,
    passes: list[int],
    backbone: Any,
    uneven: Pictures,
) -> None:
    images, more = Seen(uneven, augment=augment, views=own), {} if as_trained is None else {"as_trained": as_trained}
    found = [
        (rows[0, 0].item(), labels.tolist())
        for rows, labels in each_view(backbone.clip, images, asked, unit=False, **more)
    ]
    assert found == [(number, [1, 0]) for number in passes]


def test_doubles_are_exact_and_without_a_gradient() -> None:
    found = double(torch.tensor([0.1, 3.0], requires_grad=True))
    assert found.dtype == np.float64 and found.tolist() == [float(np.float32(0.1)), 3.0]


@pytest.mark.parametrize("views", [0, 2])
@pytest.mark.parametrize("unit", [True, False])
def test_each_class_is_divided_by_its_own_number_of_images(
    views: int, unit: bool, backbone: Any, uneven: Pictures
) -> None:
    assert uneven.labels.bincount().tolist() == [2, 5, 1, 3]
    features, labels = encoded(backbone, uneven, views, unit=unit), uneven.labels.numpy()
    found = class_means(METHODS["prototype"](backbone, NAMES), uneven, views, unit=unit)
    expected = [features[labels == c].mean(axis=0) for c in range(4)]
    np.testing.assert_allclose(found.numpy(), np.array(expected), atol=1e-5, rtol=1e-4)


def test_class_sums_by_hand() -> None:
    """1 + 4 and 8; nothing of the last class."""
    features = torch.tensor([[1.0, 10.0], [8.0, 80.0], [4.0, 40.0]])
    assert class_sums(features, torch.tensor([0, 1, 0]), 3).tolist() == [[5, 50], [8, 80], [0, 0]]
    plain = one_hot(torch.tensor([2, 0], dtype=torch.uint8), 3)
    assert plain.tolist() == [[0, 0, 1], [1, 0, 0]] and plain.dtype == torch.float32
    assert one_hot(torch.empty(2, dtype=torch.int64, device="meta"), 3).device.type == "meta"  # that of the labels


def test_labels_are_counted_and_checked() -> None:
    names = ["a", "b", "c"]
    assert check_labels("x", torch.tensor([2, 0, 1, 2]), names).tolist() == [1, 1, 2]
    assert check_labels("x", torch.tensor([0, 0]), names, all_classes=False).tolist() == [2, 0, 0]
    with pytest.raises(MethodError, match="x expected images of every class, found none of 'b': add one"):
        check_labels("x", torch.tensor([2, 0, 2]), names)
    for everything in (True, False):
        with pytest.raises(MethodError, match="x expected labels below 3, found 3: correct the labels"):
            check_labels("x", torch.tensor([0, 1, 3, 2]), names, all_classes=everything)


def test_means_name_the_method_that_lacks_images(backbone: Any, uneven: Pictures) -> None:
    some = Pictures(uneven.images[uneven.labels < 3], uneven.labels[uneven.labels < 3])
    with pytest.raises(MethodError, match=f"^prototype expected images of every class, found none of '{NAMES[3]}'"):
        class_means(METHODS["prototype"](backbone, NAMES), some, 0, unit=True)


def test_no_images_are_refused(backbone: Any, uneven: Pictures) -> None:
    class Nothing(Pictures):
        def evaluation(self) -> Any:
            return iter(())

    with pytest.raises(MethodError, match="found none: give at least one for each class"):
        view_features(backbone.clip, Nothing(uneven.images, uneven.labels), 0, unit=True)
