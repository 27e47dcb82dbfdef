"""`daptune suggest` as a user types it: the list, JSON, links, the page, and bad input."""

import io
import re
from pathlib import Path

import pytest
from PIL import Image

from ..conftest import COLOURS, save_picture
from .conftest import Command


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """Seven pictures, one of them in a sub-folder, and a damaged file."""
    for number, colour in enumerate([*COLOURS.values()] * 2):
        save_picture(tmp_path / "pool" / f"{number}.png", colour, 900 + number)
    save_picture(tmp_path / "pool" / "more" / "a b.png", COLOURS["red"], 990)
    (tmp_path / "pool" / "bad.png").write_bytes(b"no image")
    return tmp_path / "pool"


def test_a_line_for_each_image_that_can_be_piped(daptune: Command, adapter: Path, pool: Path) -> None:
    done = daptune("suggest", adapter, pool, "-n", "3")
    assert done.code == 0
    rows = [line.split("\t") for line in done.out.splitlines()]
    assert len({row[0] for row in rows}) == 3 and all(Path(row[0]).is_file() for row in rows)
    predicted = {row["file"]: row for row in daptune("predict", adapter, pool).rows if "label" in row}
    for name, label, probability in rows:
        assert label == predicted[name]["label"]
        assert float(probability) == pytest.approx(predicted[name]["probability"], abs=6e-4)
    assert "1 of 8 files could not be read; the first:" in done.err and "bad.png" in done.err
    assert "3 of 7 images to label next" in done.err


def test_json_lists_and_tables(daptune: Command, adapter: Path, pool: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("".join(f"{path}\n" for path in sorted(pool.glob("*.png"))))
    found = daptune("suggest", adapter, tmp_path / "list.txt", "--number", "4", "--json").json
    assert (found["images"], found["unreadable"], found["out"]) == (6, 1, None)
    margins = [row["margin"] for row in found["suggestions"]]
    assert len(margins) == 4 and margins == sorted(margins)
    assert set(found["suggestions"][0]) == {"file", "label", "probability", "margin"}
    done = daptune("suggest", adapter, pool)
    assert len(done.out.splitlines()) == 7 and "all 7 images that can be read" in done.err


def test_links(daptune: Command, adapter: Path, pool: Path, tmp_path: Path) -> None:
    done = daptune("suggest", adapter, pool, "-n", "7", "--out", "next")
    assert done.code == 0 and done.out == "" and "in next" in done.err
    links = sorted(Path("next").iterdir())
    assert {link.resolve() for link in links} == {path for path in pool.rglob("*.png") if path.name != "bad.png"}
    assert [re.match(r"(\d) .*\.png$", link.name).group(1) for link in links] == list("1234567")  # type: ignore[union-attr]
    assert any(link.name.endswith(" a b.png") for link in links)
    again = daptune("suggest", adapter, pool, "--out", "next")
    assert again.code == 2 and "next exists already" in again.err and again.err.count("\n") == 1


def test_files_where_links_cannot_be_made_and_of_images_in_a_table(
    daptune: Command, adapter: Path, pool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError(1, "Operation not permitted")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "symlink_to", refused)
        assert daptune("suggest", adapter, pool / "0.png", "--out", "copies").code == 0
    (copy,) = Path("copies").iterdir()
    assert not copy.is_symlink() and copy.read_bytes() == (pool / "0.png").read_bytes()
    parquet = pytest.importorskip("pyarrow.parquet")
    pyarrow = pytest.importorskip("pyarrow")
    stream = io.BytesIO()
    Image.open(pool / "1.png").save(stream, "JPEG")
    cells = [{"bytes": stream.getvalue(), "path": "x/y.jpg"}, {"bytes": b"no image", "path": "z.jpg"}]
    parquet.write_table(pyarrow.Table.from_pylist([{"image": cell} for cell in cells]), "t.parquet")
    assert daptune("suggest", adapter, "t.parquet", "--out", "written").code == 0
    (file,) = Path("written").iterdir()
    assert file.name.endswith(" y.jpeg") and file.read_bytes() == stream.getvalue()


def test_page(daptune: Command, adapter: Path, pool: Path) -> None:
    done = daptune("suggest", adapter, pool, "-n", "3", "--out", "next.html", "--json")
    assert done.code == 0 and done.json["out"] == "next.html"
    text = Path("next.html").read_text("utf-8")
    assert text.count("data:image/webp;base64,") == 3 and "http" not in text.replace("http-equiv", "")
    for rank, row in enumerate(done.json["suggestions"], start=1):
        assert row["file"] in text and f"{rank}. {row['label']}, {100 * row['probability']:.0f} %?" in text
    lines = Path("next-files/suggestions.csv").read_text("utf-8").splitlines()
    assert lines[0] == "file,guess,probability,margin"
    assert [line.split(",")[0] for line in lines[1:]] == [row["file"] for row in done.json["suggestions"]]


def test_bad_input_is_one_line(daptune: Command, adapter: Path, pool: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "model.onnx").touch()
    for words, message in (
        ((adapter,), "no images given"),
        ((adapter, tmp_path / "empty"), "no image files in"),
        ((adapter, pool, "-n", "0"), "-n must be at least 1; found 0"),
        ((adapter, pool, "--out", pool / "0.png"), "exists already"),
        ((tmp_path / "model.onnx", pool), "gives no image features"),
        ((tmp_path / "nowhere", pool), "nowhere"),
    ):
        done = daptune("suggest", *words)
        assert done.code == 2 and done.out == "" and message in done.err and done.err.count("\n") == 1, done.err
    done = daptune("suggest", adapter, pool / "bad.png", "--out", "next")
    assert done.code == 2 and "none of the files could be read" in done.err and not Path("next").exists()
