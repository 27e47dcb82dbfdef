"""Identical images by hand: which pairs are found in uneven tables, and how a line names them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from daptune.data import images as decoding
from daptune.data.cache import Decoder
from daptune.data.check import check_readable
from daptune.data.identical import GRID, Place, find_identical, pixel_digest, warn_identical
from daptune.data.table import ImageTable

CAT, DOG = 0, 1


def noise(seed: int, width: int = 40, height: int = 30) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def table_of(rows: list[tuple[str, int, int]], root: Path) -> ImageTable:
    """Files (name, seed of the pixels, label) below root."""
    for name, seed, _ in rows:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        noise(seed).save(root / name)
    labels = np.array([label for _, _, label in rows], dtype=np.int64)
    return ImageTable(tuple(root / name for name, _, _ in rows), labels, ("cat", "dog"), root)


@pytest.fixture
def tables(tmp_path: Path) -> dict[str, ImageTable]:
    train = [("c/0.png", 1, CAT), ("c/1.png", 2, CAT), ("d/0.png", 3, DOG), ("d/1.bmp", 1, DOG), ("c/2.png", 2, CAT)]
    test = [("c/0.png", 9, CAT), ("d/0.png", 2, DOG), ("d/1.png", 1, DOG), ("d/2.png", 9, DOG)]
    return {"train": table_of(train, tmp_path / "train"), "test": table_of(test, tmp_path / "test")}


def test_pairs_are_those_with_equal_pixels_whatever_their_format(tables: dict[str, ImageTable]) -> None:
    decoder = Decoder()
    for table in tables.values():
        check_readable(table, decoder)
    found = find_identical(tables, decoder.digest)
    assert found.contradictions == ((Place("train", 3), Place("train", 0)), (Place("test", 3), Place("test", 0)))
    assert found.leaks == ((Place("test", 1), Place("train", 1)), (Place("test", 2), Place("train", 3)))
    assert found.repeats == ((Place("train", 4), Place("train", 1)),)
    first, second, third = found.lines()
    assert first.startswith("1 of 5 training images is identical to one of another class: ")
    assert "train/d/1.bmp (dog) = train/c/0.png (cat)" in first
    assert "1 of 4 test images is identical to one of another class: test/d/2.png (dog) = test/c/0.png (cat)" in second
    assert third.startswith(
        "2 of 4 test images are identical to training images: test/d/0.png (dog) = train/c/1.png (cat)"
    )
    assert "optimistic" in third


def test_no_image_is_decoded_for_it(tables: dict[str, ImageTable], monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = Decoder()
    for table in tables.values():
        check_readable(table, decoder)

    def refused(*_: object, **__: object) -> Image.Image:
        raise AssertionError

    monkeypatch.setattr(decoding, "decode", refused)
    assert len(find_identical(tables, decoder.digest).leaks) == 2
    decoder.forget(tables["train"].images)
    assert find_identical(tables, decoder.digest).leaks == ()


def test_what_was_not_examined_is_not_compared(tables: dict[str, ImageTable]) -> None:
    decoder = Decoder()
    for source in tables["train"].images:
        decoder(source)
    found = find_identical(tables, decoder.digest)
    assert found.lines() == [] and found.repeats == ()


def test_many_pairs_are_counted_and_three_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [(f"c/{n}.png", n, CAT) for n in range(5)] + [(f"d/{n}.png", n, DOG) for n in range(5)]
    table, decoder = table_of(rows, tmp_path), Decoder(0)
    check_readable(table, decoder)
    warn_identical({"train": table, "val": None}, decoder.digest)
    (record,) = caplog.records
    assert "5 of 10 training images" in record.message and "and 2 more" in record.message
    assert "d/2.png (dog) = c/2.png (cat)" in record.message and "d/3.png" not in record.message


def test_digests_differ_by_one_pixel_and_by_the_size() -> None:
    image, other = noise(1), noise(1)
    assert pixel_digest(image) == pixel_digest(other)
    other.putpixel((39, 29), (0, 0, 0) if other.getpixel((39, 29)) != (0, 0, 0) else (9, 9, 9))
    assert pixel_digest(image) != pixel_digest(other)
    flat = [Image.new("RGB", size, "red") for size in ((40, 30), (30, 40), (1200, 1), (4000, 3000), (3000, 4000))]
    assert len({pixel_digest(one) for one in flat}) == 5


def test_of_a_large_image_a_grid_counts() -> None:
    large = noise(5, 2 * GRID, 3 * GRID)
    digest = pixel_digest(large)
    assert digest == pixel_digest(large.copy())
    assert digest != pixel_digest(noise(6, 2 * GRID, 3 * GRID))


def test_images_in_memory_are_compared_too() -> None:
    pixels = [np.asarray(noise(n)) for n in (1, 2, 1)]
    table, decoder = ImageTable(tuple(pixels), np.array([CAT, CAT, DOG]), ("cat", "dog")), Decoder()
    check_readable(table, decoder)
    (line,) = find_identical({"train": table}, decoder.digest).lines()
    assert "array (30, 40, 3) uint8 (dog) = array (30, 40, 3) uint8 (cat)" in line
