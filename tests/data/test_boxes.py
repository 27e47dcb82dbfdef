"""Boxes of a file, and the pixels in them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from daptune.data import boxes as boxes_module
from daptune.data.boxes import Boxes
from daptune.data.images import decode
from daptune.errors import DataError

PIXELS = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)


def table(folder: Path, *rows: str, header: str = "image,x0,y0,x1,y1") -> Path:
    path = folder / "boxes.csv"
    path.write_text("\n".join([header, *rows]))
    return path


@pytest.mark.parametrize(
    ("box", "rows", "columns"),
    [
        ("0,0,40,30", slice(0, 30), slice(0, 40)),
        ("5,7,9,8", slice(7, 8), slice(5, 9)),
        ("5.4,7.6,8.2,9.01", slice(7, 10), slice(5, 9)),  # every pixel that it touches
        ("-3,-2,4,3", slice(0, 3), slice(0, 4)),
        ("38,29.5,99,99", slice(29, 30), slice(38, 40)),
    ],
)
def test_pixels_of_a_box(tmp_path: Path, box: str, rows: slice, columns: slice) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    ((name, crop),) = Boxes(table(tmp_path, f"a.png,{box}"), tmp_path)
    assert name == "a.png" and np.array_equal(np.asarray(decode(crop)), PIXELS[rows, columns])
    assert crop.size == (40, 30)


def test_boxes_are_of_the_upright_picture(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # held upright: stored with its right side up
    Image.fromarray(PIXELS).save(tmp_path / "a.png", exif=exif)
    ((_, crop),) = Boxes(table(tmp_path, "a.png,0,0,30,10"), tmp_path)
    assert np.array_equal(np.asarray(decode(crop)), np.rot90(PIXELS, -1)[:10])


def test_a_picture_is_decoded_once_for_its_boxes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.png", "b.png"):
        Image.fromarray(PIXELS).save(tmp_path / name)
    decoded: list[str] = []
    monkeypatch.setattr(boxes_module, "decode", lambda path: decoded.append(path.name) or decode(path))
    rows = [f"{name},{x},0,{x + 3},5" for x in range(6) for name in ("a.png", "b.png")]
    assert len([decode(crop) for _, crop in Boxes(table(tmp_path, *rows), tmp_path)]) == 12
    assert decoded == ["a.png", "b.png"]


@pytest.mark.parametrize(
    ("rows", "header", "said"),
    [
        (["a,1,2,3,4"], "image,left,top,right,bottom", "expected the columns image, x0, y0, x1 and y1"),
        (["a,1,2,3,4", "a,1,2,x,4"], "image,x0,y0,x1,y1", "boxes.csv, row 2: expected a number of pixels, found 'x'"),
        (["a,1,2,nan,4"], "image,x0,y0,x1,y1", "boxes.csv, row 1: expected a number of pixels, found 'nan'"),
        (["a,1,2,3"], "image,x0,y0,x1,y1", "row 1: expected 5 values as in the header, found 4"),
        ([], "image,x0,y0,x1,y1", "boxes.csv has no boxes; expected rows below the header"),
    ],
)
def test_a_file_that_is_none_is_one_line(tmp_path: Path, rows: list[str], header: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        Boxes(table(tmp_path, *rows, header=header), tmp_path)


def test_so_many_boxes_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boxes_module, "MOST_ROWS", 2)
    assert len(Boxes(table(tmp_path, *["a,1,2,3,4"] * 2), tmp_path).boxes["a"]) == 2
    with pytest.raises(DataError, match="has more than 2 boxes; divide it"):
        Boxes(table(tmp_path, *["a,1,2,3,4"] * 3), tmp_path)
