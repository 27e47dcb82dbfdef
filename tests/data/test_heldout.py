"""Which images are learned from and measured on: nothing in both, what cannot be read in neither, and found again."""

import logging
from pathlib import Path

import pytest

from daptune.data import formats, heldout
from daptune.data.cache import Decoder
from daptune.data.heldout import choose_split, draw_readable, hold_out, read_images
from daptune.data.sources import read_source
from daptune.data.table import ImageTable
from daptune.errors import DataError

from ..conftest import CLASSES, COLOURS, save_picture

COUNTS = (4, 10, 7)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three classes of 4, 10 and 7 pictures."""
    for place, (name, count) in enumerate(zip(CLASSES, COUNTS, strict=True)):
        for number in range(count):
            save_picture(tmp_path / "pictures" / name / f"{number}.png", COLOURS[name], 20 * place + number)
    return tmp_path / "pictures"


def names(table: ImageTable | None) -> set[str]:
    return set() if table is None else {f"{image.parent.name}/{image.name}" for image in table.images}  # type: ignore[union-attr]


def test_part_of_each_class_is_held_out(folder: Path) -> None:
    splits, name = hold_out(read_source(folder), 0.3, 1)
    assert splits.test is not None and splits.test.counts().tolist() == [0, 3, 2]  # 4 are too few
    assert splits.train.counts().tolist() == [4, 7, 5] and name == "30% of the images, drawn by class"
    assert not names(splits.train) & names(splits.test)
    assert names(hold_out(read_source(folder), 0.3, 2)[0].test) != names(splits.test)
    assert hold_out(read_source(folder), 0, 1)[0].test is None
    again, name = hold_out(splits, 0.5, 1)
    assert again.test is splits.test and name == "test split"


def test_what_cannot_be_read_is_left_out_of_its_split_and_listed(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "split").mkdir()
    folder.rename(tmp_path / "split" / "train")
    for number in range(3):
        save_picture(tmp_path / "split" / "test" / CLASSES[0] / f"t{number}.png", COLOURS[CLASSES[0]], number)
    for bad in ("train/red/3.png", f"test/{CLASSES[0]}/t1.png"):
        (tmp_path / "split" / bad).write_bytes(b"no image")
    (tmp_path / "split" / "train" / "red" / "notes.txt").write_text("x")
    with caplog.at_level(logging.WARNING, "daptune"):
        splits = read_images(tmp_path / "split")
    assert splits.train.counts().tolist() == [4, 10, 6] and splits.test is not None and len(splits.test) == 2
    assert "red/3.png" not in names(splits.train) and f"{CLASSES[0]}/t1.png" not in names(splits.test)
    assert (
        "2 of 24 images cannot be read" in caplog.text
        and "left out 1 files that are no images: notes.txt" in caplog.text
    )
    for path in (tmp_path / "split" / "train" / "red").glob("*.png"):
        path.write_bytes(b"no image")
    with pytest.raises(DataError, match="no image of red can be read"):
        read_images(tmp_path / "split")


def test_of_many_images_only_those_used_are_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(heldout, "CHECK_ALL", 20)
    splits = read_images(folder)
    held = hold_out(splits, 0.3, 1)[0].test
    assert held is not None and not caplog.text
    held.images[0].write_bytes(b"no image")  # type: ignore[union-attr]
    found = hold_out(read_images(folder), 0.3, 1)[0]
    assert names(found.test) == names(held) - names(held.subset([0])) and "1 of 5 images" in caplog.text
    table, name = choose_split(read_images(folder), None, folder)
    assert len(table) == 20 and name == "all"
    with pytest.raises(DataError, match=r"has no val images; it has train"):
        choose_split(splits, "val", folder)


def test_a_bad_image_is_drawn_anew_and_the_rest_forgotten(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = read_source(folder).train
    first = draw_readable(table, 2, 1, None, Decoder()).train
    bad = first.images[-1]
    assert isinstance(bad, Path)
    bad.write_bytes(b"no image")
    decoder = Decoder()
    for image in table.images:
        if image != bad:
            decoder(image)
    drawn = draw_readable(table, 2, 1, None, decoder).train
    assert bad not in drawn.images and drawn.counts().tolist() == [2, 2, 2]
    kept = set(drawn.images)
    for image in table.images:
        image.unlink()  # type: ignore[union-attr]
    for image in table.images:
        if image in kept:
            decoder(image)
        else:
            with pytest.raises(DataError):
                decoder(image)


def test_bad_images_of_a_large_source_are_one_list(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Each draw meets others; all of them are told together."""
    for number in range(8):
        (folder / CLASSES[1] / f"{number}.png").write_bytes(b"no image")
    drawn = draw_readable(read_source(folder).train, 2, 1, None, Decoder()).train
    assert drawn.counts().tolist() == [2, 2, 2] and len(caplog.records) == 1
    assert "images cannot be read" in caplog.text and "others were drawn in their place" in caplog.text


def test_pictures_that_are_not_read_here_are_counted_by_kind(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats, "_reads_heic", lambda: False)
    for name in ("a.heic", "b.heic", "c.pdf"):
        (folder / CLASSES[0] / name).write_bytes(b"")
    read_images(folder)
    assert caplog.messages == [
        "2 .heic files were left out: they need pillow-heif: pip install 'daptune[heic]'",
        "left out 1 files that are no images: c.pdf",
    ]
