"""Batches are pure functions of their place in the run, whatever the threads and the cache do."""

import gc
import io
import itertools
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
from PIL import Image

from daptune.clip import preprocess as preprocessing
from daptune.data import Augmentation, ImageLoader, ImageTable, iter_batches
from daptune.data import images as images_module
from daptune.data.augment import EPOCH, VIEW, augment, epoch_order, generator
from daptune.data.cache import Decoder
from daptune.data.parallel import ordered_map
from daptune.data.sampling import Sampler
from daptune.errors import DataError


class Preprocess:
    """Resizes to a square and scales; counts its calls."""

    size = 8

    def __call__(self, image: Image.Image) -> torch.Tensor:
        return self.normalize(np.asarray(image.resize((self.size, self.size))))

    def normalize(self, pixels: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255 - 0.5


def picture(i: int) -> np.ndarray:
    return np.random.default_rng(i).integers(0, 256, (12 + i % 5, 16, 3)).astype(np.uint8)


def png(i: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture(i)).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture(scope="module")
def table() -> ImageTable:
    return ImageTable(tuple(png(i) for i in range(23)), np.arange(23) % 3, ("a", "b", "c"))


def make(table: ImageTable, **options) -> ImageLoader:
    defaults = {"batch_size": 4, "seed": 1, "augment": True, "shuffle": True}
    return ImageLoader(table, Preprocess(), **(defaults | options))


def same(one, two) -> bool:
    one, two = list(one), list(two)
    return len(one) == len(two) and all(
        torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(one, two, strict=True)
    )


def threads() -> int:
    return sum(thread.name.startswith("daptune-data") for thread in threading.enumerate())


def test_an_epoch_is_what_its_parts_say(table):
    loader = make(table)
    order = epoch_order(23, 1, 5)
    batches = list(loader.epoch(5))
    assert loader.batches_per_epoch == len(batches) == 5
    for b, (images, labels) in enumerate(batches):
        rows = order[4 * b : 4 * b + 4]
        assert images.shape == (4, 3, 8, 8) and images.dtype == torch.float32 and images.is_contiguous()
        assert labels.dtype == torch.int64 and labels.tolist() == (rows % 3).tolist()
        for image, row in zip(images, rows, strict=True):
            view = augment(Image.fromarray(picture(row)), 8, generator(1, EPOCH, 5, row), Augmentation())
            assert torch.equal(image, Preprocess().normalize(view))


@pytest.mark.parametrize("start", [0, 1, 4, 5, 9])
def test_an_epoch_goes_on_anywhere(table, start):
    loader = make(table)
    assert same(loader.epoch(2, start), list(loader.epoch(2))[start:])


@pytest.mark.parametrize(
    "options", [{"workers": 0}, {"workers": 1}, {"workers": 7}, {"cache_bytes": 0}, {"cache_bytes": 2000}]
)
def test_threads_and_cache_change_no_bit(table, options):
    plain, other = make(table, workers=2), make(table, **options)
    for _ in range(2):
        assert same(plain.epoch(3), other.epoch(3))
        assert same(plain.evaluation(), other.evaluation())
        assert same(plain.augmented_view(1), other.augmented_view(1))


def test_epochs_views_and_seeds_differ(table):
    loader = make(table, shuffle=False)
    runs = [
        loader.epoch(0),
        loader.epoch(1),
        loader.augmented_view(0),
        loader.augmented_view(1),
        loader.evaluation(),
    ]
    firsts = [next(run)[0] for run in [*runs, make(table, shuffle=False, seed=2).epoch(0)]]
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(firsts, 2))


def test_views_are_the_rows_in_order(table):
    images, labels = next(make(table).augmented_view(2))
    expected = augment(Image.fromarray(picture(3)), 8, generator(1, VIEW, 2, 3), Augmentation())
    assert torch.equal(images[3], Preprocess().normalize(expected)) and labels.tolist() == [0, 1, 2, 0]


def test_evaluation_is_every_image_in_order(table):
    batches = list(make(table).evaluation())
    assert [len(labels) for _, labels in batches] == [4] * 5 + [3]
    assert torch.cat([labels for _, labels in batches]).tolist() == table.labels.tolist()
    images = torch.cat([images for images, _ in batches])
    assert all(torch.equal(images[i], Preprocess()(Image.fromarray(picture(i)))) for i in range(23))


@pytest.mark.parametrize(("limit", "made"), [(23 * 3 * 8 * 8 * 4, 23), (23 * 3 * 8 * 8 * 4 - 1, 46)])
def test_the_evaluation_transform_is_kept_if_all_images_fit(table, monkeypatch, limit, made):
    monkeypatch.setattr("daptune.data.loader.EVALUATED_BYTES", limit)
    calls, plain = [], Preprocess.__call__
    monkeypatch.setattr(Preprocess, "__call__", lambda self, image: (calls.append(1), plain(self, image))[1])
    loader = make(table)
    first = [(images.clone(), labels) for images, labels in loader.evaluation()]
    for images, _ in loader.evaluation():
        images.zero_()  # a batch is the reader's own
    assert same(first, make(table).evaluation()) and len(calls) == made + 23
    calls.clear()
    assert same(first, loader.evaluation()) and len(calls) == made - 23


def test_without_augmentation_an_epoch_shows_the_evaluation_transform(table):
    loader = make(table, augment=False, shuffle=False, drop_last=False)
    assert same(loader.epoch(4), loader.evaluation())


@pytest.mark.parametrize(
    ("count", "size", "drop_last", "batches"),
    [(23, 4, "auto", 5), (23, 23, "auto", 1), (23, 24, "auto", 1), (23, 32, "auto", 1), (20, 4, "auto", 5),
     (23, 4, False, 6), (23, 4, True, 5)],
)  # fmt: skip
def test_the_ragged_batch_is_dropped_by_dassls_rule(table, count, size, drop_last, batches):
    loader = make(table.subset(range(count)), batch_size=size, drop_last=drop_last)
    assert loader.batches_per_epoch == len(list(loader.epoch(0))) == batches


def test_dropping_the_iterator_ends_its_threads(table):
    loader = make(table, workers=3)
    assert threads() == 0
    batches = loader.epoch(0)
    next(batches)
    assert 0 < threads() <= 3
    del batches
    gc.collect()
    assert threads() == 0
    list(loader.epoch(0))
    assert threads() == 0


def test_torchs_own_threads_stay_as_they_were(table):
    before = torch.get_num_threads()
    list(make(table, workers=2).epoch(0))
    assert torch.get_num_threads() == before


def test_a_damaged_image_is_named_at_its_turn(table, tmp_path):
    path = tmp_path / "cut.png"
    path.write_bytes(png(0)[:100])
    broken = ImageTable((*table.images[:6], path), table.labels[:7], table.class_names)
    batches = make(broken, drop_last=False).evaluation()
    next(batches)
    with pytest.raises(DataError, match=r"cut\.png"):
        next(batches)
    assert threads() == 0


def test_images_are_decoded_once(table, monkeypatch):
    calls = []
    real = images_module.decode
    monkeypatch.setattr(images_module, "decode", lambda *a, **k: (calls.append(1), real(*a, **k))[1])
    loader = make(table)
    for _ in range(2):
        list(loader.evaluation())
        list(loader.epoch(1))
        list(loader.augmented_view(1))
    assert len(calls) == len(table)


def test_the_cache_keeps_within_its_bytes(monkeypatch):
    made, decode = [], images_module.decode
    monkeypatch.setattr(images_module, "decode", lambda source, **_: (made.append(source), decode(source))[1])
    cache, rows = Decoder(3 * 4 * 100), [np.full((10, 10, 3), row, np.uint8) for row in range(4)]
    for row in (0, 1, 2, 0, 3, 0, 1):  # 1 is the oldest when 3 comes
        cache(rows[row])
        assert cache.held <= cache.limit
    assert [array[0, 0, 0] for array in made] == [0, 1, 2, 3, 1]
    cache(np.zeros((100, 100, 3), np.uint8))  # alone over the limit: passed through
    assert cache.held == cache.limit


@pytest.mark.parametrize(
    ("options", "words"),
    [({"batch_size": 0}, "batch size of 1 or more"), ({"workers": -1}, "0 or more workers"),
     ({"batch_size": 99, "drop_last": True}, "23 images fill no batch of 99")],
)  # fmt: skip
def test_impossible_loaders_are_refused(table, options, words):
    with pytest.raises(DataError, match=words):
        make(table, **options)


def test_an_empty_table_is_refused(table):
    with pytest.raises(DataError, match="empty table"):
        make(table.subset([]))


class TestStream:
    def test_batches_keep_the_order_and_report_what_is_damaged(self, table):
        sources = [*table.images[:5], b"broken", *table.images[5:7], b"", b"x", b"y"]
        batches = list(iter_batches(iter(sources), preprocessing.Preprocess(size=8), batch_size=4, workers=3))
        assert [batch.indices for batch in batches] == [(0, 1, 2, 3), (4, 6, 7), ()]
        assert [[bad.index for bad in batch.failed] for batch in batches] == [[], [5], [8, 9, 10]]
        assert batches[1].sources == (sources[4], sources[6], sources[7])
        assert batches[2].images.shape == (0, 3, 8, 8)
        assert torch.equal(batches[1].images[1], preprocessing.Preprocess(size=8)(Image.fromarray(picture(5))))
        assert "not an image" in batches[1].failed[0].reason

    def test_memory_is_constant(self, table):
        taken = 0

        def endless():
            nonlocal taken
            while True:
                taken += 1
                yield table.images[taken % 23]

        batches = iter_batches(endless(), preprocessing.Preprocess(size=8), batch_size=4, workers=2)
        for number in range(1, 20):
            assert len(next(batches).indices) == 4
            assert taken <= 4 * number + 2 * 4
        batches.close()
        assert threads() == 0

    def test_no_sources_no_batches(self):
        assert list(iter_batches([], preprocessing.Preprocess(size=8))) == []

    @pytest.mark.parametrize(("options", "words"), [({"batch_size": 0}, "batch size"), ({"workers": -1}, "workers")])
    def test_impossible_options_are_refused(self, options, words):
        with pytest.raises(DataError, match=words):
            list(iter_batches([b""], preprocessing.Preprocess(size=8), **options))


class TestOrderedMap:
    @pytest.mark.parametrize("workers", [0, 1, 5, None])
    def test_order_is_kept(self, workers):
        def slow(i: int) -> int:
            time.sleep(0.002 * (i % 3))
            return i * i

        assert list(ordered_map(slow, range(30), workers=workers, ahead=7)) == [i * i for i in range(30)]

    def test_an_error_comes_at_its_turn_and_ends_the_threads(self):
        results = ordered_map(lambda i: 1 // (3 - i), range(99), workers=4)
        assert [next(results) for _ in range(3)] == [0, 0, 1]
        with pytest.raises(ZeroDivisionError):
            next(results)
        assert threads() == 0


def test_reading_needs_no_torch():
    code = "import sys, daptune.data as d; d.read_source, d.decode; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_sampler_rules_an_epoch_and_each_draw_of_an_image_is_a_view_of_its_own(table):
    """The third class of 23 has 7 images and the others 8: by hand, its images come again in the next view."""
    sampler = Sampler.of(table.labels, "balanced", None, seed=1)
    loader = make(table, sampler=sampler, batch_size=6)
    assert (loader.images_per_epoch, loader.batches_per_epoch) == (24, 4)
    rows, passes = sampler.epoch(2)
    batches = list(loader.epoch(2))
    assert torch.cat([labels for _, labels in batches]).tolist() == table.labels[rows].tolist()
    for image, row, seen in zip(torch.cat([images for images, _ in batches]), rows, passes, strict=True):
        view = augment(Image.fromarray(picture(row)), 8, generator(1, EPOCH, seen, row), Augmentation())
        assert torch.equal(image, Preprocess().normalize(view))
    assert {label: sorted(set(passes[table.labels[rows] == label])) for label in range(3)} == {
        0: [2],
        1: [2],
        2: [2, 3],
    }
    assert same(loader.epoch(2, 1), batches[1:])
    few = make(table, sampler=sampler, batch_size=6, views=3)
    assert few.draws(2)[1].tolist() == (passes % 3).tolist()


def test_a_sampler_of_equal_classes_changes_no_bit(table):
    even = table.subset(range(21))
    for sampling in ("shuffled", "balanced"):
        sampled = make(even, sampler=Sampler.of(even.labels, sampling, 16, seed=1))
        assert all(same(make(even).epoch(epoch), sampled.epoch(epoch)) for epoch in (0, 4))


def test_a_part_of_many_images_may_be_less_than_a_batch(table):
    sampler = Sampler.of(table.labels, "balanced", 2, seed=1)
    assert [len(labels) for _, labels in make(table, sampler=sampler, batch_size=16).epoch(0)] == [6]
    with pytest.raises(DataError, match="6 images fill no batch of 16"):
        make(table, sampler=sampler, batch_size=16, drop_last=True)
