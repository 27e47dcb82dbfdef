"""Which images are suggested: uncertain ones, one of each group; streams are not kept, bad files are counted."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import daptune
from daptune import FewShotClassifier, labelling
from daptune.data.stream import Item
from daptune.errors import DataError
from daptune.labelling import choose, margins, suggest, suggest_of

from .conftest import CLASSES, COLOURS, save_picture


def groups(counts: list[int], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Unit features (n, 8) close to a direction a group, and the group of each."""
    rng = np.random.default_rng(seed)
    of = np.repeat(np.arange(len(counts)), counts)
    z = np.eye(8)[of] + 0.02 * rng.normal(size=(len(of), 8))
    return z / np.linalg.norm(z, axis=1, keepdims=True), of


def test_margins_are_the_gap_of_the_two_largest() -> None:
    p = np.array([[0.2, 0.5, 0.3], [0.9, 0.05, 0.05], [0.1, 0.45, 0.45]])
    assert margins(p) == pytest.approx([0.2, 0.85, 0])
    assert margins(np.ones((2, 1))).tolist() == [0, 0]


def test_one_image_of_each_group_whatever_the_sizes() -> None:
    z, of = groups([30, 3, 12, 5])
    margin = np.random.default_rng(1).uniform(0, 0.5, len(of))
    rows = choose(z, margin, 4)
    assert sorted(of[rows]) == [0, 1, 2, 3]
    assert [margin[row] for row in rows] == sorted(margin[row] for row in rows)
    for row in rows:  # the nearest to the weighted mean of its group
        own = of == of[row]
        centre = np.average(z[own], axis=0, weights=1 - margin[own])
        distances = np.linalg.norm(z[own] - centre, axis=1)
        assert np.linalg.norm(z[row] - centre) == pytest.approx(distances.min())


def test_sure_images_count_little() -> None:
    z, of = groups([20, 20, 20])
    margin = np.where(of == 2, 1.0, 0.1)
    assert sorted(of[choose(z, margin, 2)]) == [0, 1]
    assert len(choose(z, np.ones(60), 3)) == 3


def test_equal_images_are_suggested_once_unless_there_are_no_others() -> None:
    z, _ = groups([1, 1, 1])
    z, margin = np.repeat(z, 5, axis=0), np.linspace(0, 0.9, 15)
    assert sorted(row // 5 for row in choose(z, margin, 3)) == [0, 1, 2]
    assert len(set(choose(z, margin, 7))) == 7
    assert choose(z, margin, 40) == list(range(15))


@pytest.fixture(scope="module")
def fitted(made_up_backbone: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], FewShotClassifier]:
    """A classifier of three classes by any method, and images to choose from in `pool/`."""
    folder = tmp_path_factory.mktemp("pool")
    for place, name in enumerate(CLASSES):
        for number in range(3 + place):
            save_picture(folder / "train" / name / f"{number}.png", COLOURS[name], 50 * place + number)

    def fit(method: str) -> FewShotClassifier:
        options: dict[str, Any] = {"train_options": {"epochs": 1, "batch_size": 4}}
        return FewShotClassifier(method=method, backbone=made_up_backbone, **options).fit(folder / "train")

    return fit


@pytest.fixture
def pool(tmp_path: Path) -> list[Path]:
    files = []
    for number in range(23):
        name = CLASSES[number % 3]
        save_picture(tmp_path / "pool" / f"{number:02d}.png", COLOURS[name], 500 + number)
        files.append(tmp_path / "pool" / f"{number:02d}.png")
    return files


@pytest.mark.parametrize("method", ["coop_vpt", "linear_probe", "maple", "plot", "clip_adapter", "vp", "prototype"])
def test_every_kind_of_method_says_what_it_predicts(
    method: str, fitted: Callable[[str], FewShotClassifier], pool: list[Path]
) -> None:
    classifier = fitted(method)
    found = daptune.suggest(classifier, pool, 5)
    assert found.read == 23 and found.unreadable == 0 and len({one.index for one in found.images}) == 5
    p = classifier.predict_proba(pool)
    two = np.sort(p, axis=1)[:, -2:]
    for one in found.images:
        assert one.source == pool[one.index] and one.label == CLASSES[p[one.index].argmax()]
        assert one.probability == pytest.approx(p[one.index].max(), abs=1e-5)
        assert one.margin == pytest.approx(two[one.index, 1] - two[one.index, 0], abs=1e-5)
    assert [one.margin for one in found.images] == sorted(one.margin for one in found.images)


def test_bad_files_are_counted_and_the_rest_is_listed(
    fitted: Callable[[str], FewShotClassifier], pool: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "bad.png").write_bytes(b"no image")
    classifier, seen = fitted("prototype"), list[int]()
    classifier.batch_size = 4
    items = [Item(path.name, path) for path in (tmp_path / "gone.png", *pool[:5], tmp_path / "bad.png")]
    found = suggest_of(classifier, items, 20, seen.append)
    assert (found.read, found.unreadable, sum(seen)) == (5, 2, 7)
    assert [bad.name for bad in found.reasons] == ["gone.png", "bad.png"]
    assert {one.name for one in found.images} == {path.name for path in pool[:5]}
    with pytest.raises(DataError, match="none that can be read"):
        suggest(classifier, [tmp_path / "bad.png"])
    with pytest.raises(DataError, match="at least 1, found 0"):
        suggest(classifier, pool, 0)


def test_of_a_long_stream_the_least_sure_are_kept(
    fitted: Callable[[str], FewShotClassifier], pool: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier, most = fitted("prototype"), list[int]()
    classifier.batch_size = 3
    gaps = margins(classifier.predict_proba(pool))
    monkeypatch.setattr(labelling, "CANDIDATES", 2)
    keep = labelling._least_sure
    monkeypatch.setattr(labelling, "_least_sure", lambda kept, n: most.append(len(kept)) or keep(kept, n))
    found = suggest(classifier, pool, 2)
    least = set(np.argsort(gaps, kind="stable")[:4].tolist())
    assert {one.index for one in found.images} <= least
    assert max(most) < 4 * 2 + 4 and len(most) > 2
