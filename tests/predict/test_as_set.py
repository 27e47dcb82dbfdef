"""Answers to a set: those of TransCLIP on the adapter's own, in the order of the images, whatever cannot be read."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from daptune import FewShotClassifier
from daptune.data.cache import Decoder
from daptune.data.sources import table_from_lists
from daptune.errors import DataError, MethodError
from daptune.predict import as_set
from daptune.transductive import TransductiveConfig, transduce

from ..conftest import CLASSES, COLOURS, save_picture


@pytest.fixture(scope="module")
def cache(made_up_backbone: str, tmp_path_factory: pytest.TempPathFactory) -> FewShotClassifier:
    """Tip-Adapter, which holds its labelled images, on uneven classes."""
    folder = tmp_path_factory.mktemp("uneven")
    for place, name in enumerate(CLASSES):
        for number in range(2 + place):
            save_picture(folder / name / f"{number}.png", COLOURS[name], 70 * place + number)
    return FewShotClassifier("tip_adapter", made_up_backbone, precision="fp32", batch_size=4).fit(folder)


@pytest.fixture
def pool(tmp_path: Path) -> list[Path]:
    """Thirteen pictures, uneven; the third cannot be read."""
    files = []
    for number, place in enumerate([0, 1, 2, 0, 0, 1, 0, 2, 0, 0, 1, 0, 0]):
        files.append(tmp_path / f"{number:02d}.png")
        save_picture(files[-1], tuple(COLOURS.values())[place], 300 + number)
    files[2].write_bytes(b"no image")
    return files


def by_hand(classifier: Any, paths: list[Path]) -> tuple[Any, Any, Any]:
    """Probabilities and unit features of an adapter alone, and its labelled images or None."""
    images = torch.stack([classifier.preprocess(Image.open(path)) for path in paths])
    with torch.no_grad():
        z = torch.nn.functional.normalize(classifier.method_.encode(images), dim=-1).numpy()
    keys = classifier.method_.state_dict().get("keys")
    held = None if keys is None else (keys.numpy(), classifier.method_.state_dict()["key_labels"].long().numpy())
    return classifier.predict_proba(paths), z, held


@pytest.mark.parametrize("held", [True, False])
def test_it_solves_for_the_answers_of_the_adapter(
    held: bool, cache: FewShotClassifier, exact: Any, pool: list[Path]
) -> None:
    classifier, good = cache if held else exact, [*pool[:2], *pool[3:]]
    p, z, support = by_hand(classifier, good)
    assert (support is not None) == held
    found = classifier.transductive().predict_proba(good)
    np.testing.assert_allclose(found, transduce(z, p, support).assignments, atol=1e-4)
    assert np.abs(found - p).max() > 1e-3
    weighted = classifier.transductive(prior_weight=0.1, labelled_prior_weight="0.2", official_prior="yes")
    config = TransductiveConfig(prior_weight=0.1, labelled_prior_weight=0.2, official_prior=True)
    expected = transduce(z, p, support, config=config).assignments
    np.testing.assert_allclose(weighted.predict_proba(good), expected, atol=1e-4)
    pixels = np.stack([classifier.preprocess(Image.open(path)).numpy() for path in good])
    np.testing.assert_allclose(classifier.transductive().probabilities(pixels), found, atol=1e-5)
    assert classifier.transductive().predict(good).tolist() == [CLASSES[row] for row in found.argmax(axis=1)]


def test_sources_are_kept_but_for_pixels(cache: FewShotClassifier, pool: list[Path]) -> None:
    """Rows for other tools and of boxes say where an image is."""
    sources = [pool[0], pool[1].read_bytes(), Image.open(pool[3]), *pool[4:]]
    batches = list(cache.transductive().stream(sources))
    assert [source for batch, _ in batches for source in batch.sources] == [pool[0], b"", b"", *pool[4:]]


def test_unreadable_images_keep_their_places(cache: FewShotClassifier, pool: list[Path]) -> None:
    batches = list(cache.transductive().stream(pool))
    assert [index for batch, _ in batches for index in batch.indices] == [0, 1, *range(3, 13)]
    assert [bad.index for batch, _ in batches for bad in batch.failed] == [2]
    found = np.concatenate([answers.probabilities for _, answers in batches])
    np.testing.assert_allclose(found, cache.transductive().predict_proba([*pool[:2], *pool[3:]]), atol=1e-5)
    assert all(not batch.images.size for batch, _ in batches)
    with pytest.raises(DataError, match="Leave it out"):
        cache.transductive().predict(pool)
    assert [len(batch.failed) for batch, _ in cache.transductive().stream([pool[2]])] == [1]


def test_a_few_images_are_answered_alone(
    cache: FewShotClassifier, pool: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "daptune"):
        found = cache.transductive().predict_proba(pool[3:10])
    np.testing.assert_array_equal(found, cache.predict_proba(pool[3:10]))
    assert caplog.messages == ["a set needs 8 images or more, found 7; they are answered alone"]


def test_images_of_no_class_are_told_or_left_out(
    exact: Any, pool: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = [*pool[:2], *pool[3:]]
    for number in range(9):
        path = tmp_path / f"noise{number}.png"
        Image.fromarray(np.random.default_rng(number).integers(0, 255, (40, 36, 3), np.uint8)).save(path)
        good.insert(number, path)
    known = exact.predict_known(good)
    reject = float(np.median(known))
    kept = known > reject
    assert 8 <= kept.sum() < len(good)
    p, z, _ = by_hand(exact, good)
    found = exact.transductive(reject).predict_proba(good)
    np.testing.assert_allclose(found[kept], transduce(z[kept], p[kept]).assignments, atol=1e-4)
    np.testing.assert_array_equal(found[~kept], exact.predict_proba(good)[~kept])
    strange = int((known <= 0.05).sum())
    with caplog.at_level(logging.WARNING, "daptune"):
        exact.transductive().predict(good)
    told = f"{strange} of {len(good)} images are unlike the training images"
    assert bool([line for line in caplog.messages if line.startswith(told)]) == (strange > len(good) / 4)
    np.testing.assert_array_equal(exact.transductive().predict_known(good), known)


def test_a_set_that_is_too_large_is_refused_before_memory_is_taken(
    cache: FewShotClassifier, pool: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(as_set, "MOST_SHARES", 3 * 11)
    with pytest.raises(DataError, match="a set of 3 classes may have 11 images, found more"):
        cache.transductive().predict([*pool[:2], *pool[3:]])
    assert len(cache.transductive().predict(pool[3:])) == 10


def test_bad_options_and_what_does_not_go_with_a_set(cache: FewShotClassifier, exact: Any, pool: list[Path]) -> None:
    with pytest.raises(MethodError, match="transductive has no option 'gama'"):
        cache.transductive(gama=1)
    with pytest.raises(DataError, match="does not say what known images look like"):
        cache.transductive(0.05)
    with pytest.raises(DataError, match="--reject must be a share"):
        exact.transductive(1.5)
    with pytest.raises(DataError, match="leave out --sets"):
        exact.transductive().predict_sets(pool)


def test_it_is_measured_alone_and_as_a_set(exact: Any, pool: list[Path]) -> None:
    good = [*pool[:2], *pool[3:]]
    labels = [CLASSES[place] for place in [0, 1, 0, 0, 1, 0, 2, 0, 0, 1, 0, 0]]
    table, ticks = table_from_lists(good, labels), list[int]()
    order = [table.class_names.index(name) for name in CLASSES]
    assert order == [0, 1, 2]
    alone, together = exact.transductive().measure(table, Decoder(0), lambda: ticks.append(1))
    np.testing.assert_allclose(alone.probabilities, exact.evaluate(table).probabilities, atol=1e-6)
    np.testing.assert_array_equal(alone.known, exact.evaluate(table).known)
    np.testing.assert_allclose(together.probabilities, exact.transductive().predict_proba(good), atol=1e-5)
    assert together.labels.tolist() == table.labels.tolist() and len(ticks) == 1
