"""The cache on disk gives the bits that decoding gives, and stays within its bytes."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from daptune.data import ImageLoader, ImageTable, images
from daptune.data.cache import Decoder, DiskCache
from daptune.data.images import decode
from daptune.errors import DataError

from .test_loader import Preprocess


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    found = [tmp_path / f"{number}.jpg" for number in range(5)]
    for number, path in enumerate(found):
        Image.fromarray(rng.integers(0, 256, (10 + number, 12, 3)).astype(np.uint8)).save(path)
    return found


def never() -> Image.Image:
    raise AssertionError("decoded although it was kept")


def test_it_outlives_the_run_and_changes_no_bit(paths: list[Path], tmp_path: Path, monkeypatch) -> None:
    table = ImageTable(tuple(paths), np.zeros(5, np.int64), ("a",))

    def batches(**options) -> torch.Tensor:
        loader = ImageLoader(table, Preprocess(), 2, seed=1, augment=True, cache_bytes=0, **options)
        return torch.cat([batch for batch, _ in loader.epoch(3)] + [batch for batch, _ in loader.evaluation()])

    plain = batches()
    assert torch.equal(batches(cache_dir=tmp_path / "a" / "cache"), plain)
    monkeypatch.setattr(images, "decode", lambda *_, **__: never())
    assert torch.equal(batches(cache_dir=tmp_path / "a" / "cache"), plain)


def test_a_picture_that_changed_is_decoded_anew(paths: list[Path], tmp_path: Path) -> None:
    cache = DiskCache(tmp_path / "cache", 10_000)
    first = cache.get(paths[0], lambda: decode(paths[0]))
    assert cache.get(paths[0], never).tobytes() == first.tobytes()
    Image.new("RGB", (7, 7), "red").save(paths[0])
    os.utime(paths[0], ns=(1, 1))
    assert cache.get(paths[0], lambda: decode(paths[0])).size == (7, 7)


def test_it_keeps_within_its_bytes_and_counts_what_is_there(paths: list[Path], tmp_path: Path) -> None:
    cache = DiskCache(tmp_path / "cache", 900)
    for path in paths:
        cache.get(path, lambda path=path: decode(path))
    kept = [file.stat().st_size for file in (tmp_path / "cache").iterdir()]
    assert len(kept) == 2 and sum(kept) == cache.held <= 900
    assert DiskCache(tmp_path / "cache", 900).held == cache.held


@pytest.mark.parametrize("content", [b"", b"RGB1", b"RGB1" + b"\xff" * 8, b"nonsense" * 100])
def test_a_damaged_file_is_as_none(content: bytes, paths: list[Path], tmp_path: Path) -> None:
    cache = DiskCache(tmp_path / "cache", 10_000)
    image = cache.get(paths[0], lambda: decode(paths[0]))
    next((tmp_path / "cache").iterdir()).write_bytes(content)
    assert cache.get(paths[0], lambda: decode(paths[0])).tobytes() == image.tobytes()
    assert cache.get(paths[0], never).tobytes() == image.tobytes()


def test_places_that_cannot_be(paths: list[Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the cache .* cannot be used"):
        DiskCache(paths[0], 100)
    with pytest.raises(DataError, match="No such file"):
        DiskCache(tmp_path / "cache", 100).get(tmp_path / "gone.jpg", lambda: decode(tmp_path / "gone.jpg"))


def test_a_decoder_decodes_once_and_forgets_what_it_is_told_to(paths: list[Path], monkeypatch) -> None:
    made = []
    monkeypatch.setattr(images, "decode", lambda source, **_: (made.append(source), decode(source))[1])
    decoder, array = Decoder(), np.zeros((4, 5, 3), np.uint8)
    sources = [*paths, array, array.copy(), array.tobytes()]
    for _ in range(2):
        for source in sources[:-1]:
            decoder(source)
    assert len(made) == 7  # equal arrays are two images
    with pytest.raises(DataError):
        decoder(sources[-1])
    decoder.forget([paths[1], array, Path("never seen")])
    for source in (paths[0], paths[1], array):
        decoder(source)
    again, other = made[8:]
    assert again == paths[1] and other is array


def test_a_decoder_keeps_within_its_bytes(paths: list[Path], monkeypatch) -> None:
    made = []
    monkeypatch.setattr(images, "decode", lambda source, **_: (made.append(source), decode(source))[1])
    decoder = Decoder(4 * 12 * (12 + 13))  # the third and fourth of the pictures, which are 12 wide
    for path in [*paths[:4], *paths[2:4], paths[0], paths[3], paths[2]]:
        decoder(path)
    assert made == [*paths[:4], paths[0], paths[2]]
    none = Decoder(0)
    for _ in range(2):
        none(paths[0])
    assert made[-2:] == [paths[0], paths[0]]
