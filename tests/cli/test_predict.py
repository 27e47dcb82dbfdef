"""`daptune predict`: a row a file, in order."""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from sklearn.base import clone

from daptune.classifier import FewShotClassifier
from daptune.predict.inputs import items
from daptune.predict.row_log import RowLog

from ..conftest import CLASSES
from ..films import COLOURS, make_film
from .conftest import Command


def test_predict_gives_a_row_a_file_in_order(daptune: Command, adapter: Path, pictures: Path) -> None:
    broken = pictures / "broken.png"
    broken.write_bytes(b"no image")
    done = daptune("predict", adapter, pictures / "red", broken, "missing.png", pictures / "blue_thing" / "3.png")
    assert done.code == 0, done.err
    files = [row["file"] for row in done.rows]
    reds = [str(pictures / "red" / f"{number}.png") for number in range(10)]
    assert files == [*reds, str(broken), "missing.png", str(pictures / "blue_thing" / "3.png")]
    assert [row["file"] for row in done.rows if "error" in row] == [str(broken), "missing.png"]
    assert all(row["label"] in CLASSES and 0 <= row["probability"] <= 1 for row in done.rows if "label" in row)


def test_predict_as_csv_with_several_classes(daptune: Command, adapter: Path, pictures: Path) -> None:
    done = daptune("predict", adapter, pictures / "red", "nothing.png", "--format", "csv", "--top-k", "2")
    rows = list(csv.DictReader(io.StringIO(done.out)))
    assert list(rows[0]) == ["file", "label", "probability", "label_2", "probability_2", "error"]
    assert float(rows[0]["probability"]) >= float(rows[0]["probability_2"])
    assert rows[-1]["error"] and not rows[-1]["label"]
    assert daptune("predict", adapter, pictures / "red", "--out", "rows.csv").out == ""
    assert Path("rows.csv").read_text().startswith("file,label,probability,error\n")
    daptune("predict", adapter, pictures / "red", "--out", "rows.jsonl", "--top-k", "9", "--batch-size", "3")
    assert len(json.loads(Path("rows.jsonl").read_text().splitlines()[0])["top"]) == 3
    assert sorted(path.name for path in Path().iterdir()) == ["rows.csv", "rows.jsonl"]


def test_predict_unknown_and_sets(daptune: Command, adapter: Path, fitted: FewShotClassifier, pictures: Path) -> None:
    """The rows say what the classifier says: p values of at most the share are unknown, with the likeliest class."""
    noise = pictures / "noise.png"
    Image.effect_noise((40, 36), 200).convert("RGB").save(noise)
    paths = [*sorted((pictures / "red").iterdir()), noise]
    rows = daptune("predict", adapter, *paths, "--reject", "0.1", "--sets", "0.2").rows
    known = fitted.predict_known(paths)
    assert [row["known"] for row in rows] == pytest.approx(known.tolist(), abs=1e-4)
    assert [row["unknown"] for row in rows] == (known <= 0.1).tolist()
    assert [row["likeliest"] for row in rows] == fitted.predict(paths).tolist()
    assert [row["label"] for row in rows] == ["unknown" if row["unknown"] else row["likeliest"] for row in rows]
    assert [row["set"] for row in rows] == fitted.predict_sets(paths, error=0.2)
    for words in (("--reject", "1"), ("--sets", "0")):
        done = daptune("predict", adapter, noise, *words)
        assert done.code == 2 and "must be a share between 0 and 1" in done.err and not done.out


def test_adapters_without_known_images_say_so_in_one_line(
    daptune: Command, fit: Command, fitted: FewShotClassifier, pictures: Path, paths_and_labels: Any
) -> None:
    """Those of other classes, of one image a class, of the paper's settings, and of earlier versions."""
    fitted.with_classes(["sea", "meadow"]).save("other")
    clone(fitted).set_params(shots=1).fit(*paths_and_labels).save("one")
    assert fit(pictures, "--ensemble", "none", "--out", "plain").code == 0
    for name in ("other", "one", "plain", Path(__file__).parent.parent / "adapter" / "data" / "dapt"):
        if name == "one":
            assert daptune("show", name, "--json").json["record"]["ensemble"]["similarity"] == []
        for option in ("--reject", "--sets"):
            for words in (("predict", name, pictures / "red" / "0.png"), ("eval", name, pictures, "--new-classes")):
                done = daptune(*words, option, "0.1")
                assert done.code == 2 and not done.out, done.err
                assert done.err.count("\n") == 1 and f"which {option} needs: fit a method that learns" in done.err


@pytest.mark.parametrize("option", ["--reject", "--sets"])
def test_a_run_resumed_with_another_share_is_refused(
    option: str, daptune: Command, adapter: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("predict", adapter, pictures, "--out", "rows.jsonl", "--batch-size", "4")
    append, calls = RowLog.append, []

    def stopped(log: RowLog, rows: Any) -> None:
        calls.append(rows)
        if len(calls) == 3:
            raise KeyboardInterrupt
        append(log, rows)

    with monkeypatch.context() as patch:
        patch.setattr(RowLog, "append", stopped)
        assert daptune(*words, option, "0.1").code == 130
    for other in ((), (option, "0.2")):
        done = daptune(*words, *other)
        assert done.code == 2 and f"holds a run with another {option[2:]} (0.1 there" in done.err, done.err
    done = daptune(*words, option, "0.1")
    assert done.code == 0 and "resuming after 8 existing rows" in done.err
    assert len(Path("rows.jsonl").read_text().splitlines()) == 30


def test_predict_reads_a_list_from_standard_input(
    daptune: Command, adapter: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [str(pictures / "red" / "1.png"), "", str(pictures / "blue_thing" / "2.png")]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\r\n".join(lines)))
    assert [row["file"] for row in daptune("predict", adapter, "-").rows] == [lines[0], lines[2]]
    monkeypatch.setattr(sys, "stdin", io.StringIO("a b.png\n"))
    assert list(items(["-"])) == [("a b.png", Path("a b.png"))]


def test_predict_of_nothing_readable_is_an_error(daptune: Command, adapter: Path) -> None:
    done = daptune("predict", adapter, "a.png", "b.png")
    assert done.code == 2
    assert [set(row) for row in done.rows] == [{"file", "error"}] * 2
    assert done.err == "daptune: error: none of the 2 files could be read; each row says why\n"


def test_a_reader_that_has_enough_is_no_error(adapter: Path, pictures: Path) -> None:
    command = f"'{sys.executable}' -m daptune predict '{adapter}' '{pictures}' --batch-size 1 | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert len(done.stdout.splitlines()) == 1
    assert "Traceback" not in done.stderr and "error" not in done.stderr


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("x.xlsx", "--out x.xlsx: rows are written as .jsonl, .csv or .parquet"),
        ("none/x.csv", "--out none/x.csv cannot be written: No such file or directory; name another file"),
    ],
)
def test_a_bad_out_is_told_before_anything_is_loaded(
    daptune: Command, adapter: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch, out: str, message: str
) -> None:
    monkeypatch.setattr("daptune.cli.loading.predictor_with", None)
    done = daptune("predict", adapter, pictures, "--out", out)
    assert done.code == 2 and message in done.err and done.err.count("\n") == 1
    assert not list(Path().iterdir())


def test_a_format_that_is_said_goes_with_any_ending(daptune: Command, adapter: Path, pictures: Path) -> None:
    assert daptune("predict", adapter, pictures, "--out", "x.txt", "--format", "csv").code == 0
    assert Path("x.txt").read_text().startswith("file,label,probability")


def test_predict_transductive_answers_to_all_images_as_one_set(
    daptune: Command, adapter: Path, fitted: FewShotClassifier, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same rows, answered by the set; an interrupted run starts again, because a part of a set is another set."""
    (broken := pictures / "broken.png").write_bytes(b"no image")
    paths = [path for path in sorted(pictures.rglob("*.png")) if path != broken]
    found = fitted.transductive().predict_proba(paths)
    rows = daptune("predict", adapter, pictures, "--transductive").rows
    assert [row["file"] for row in rows if "label" in row] == [str(path) for path in paths]
    assert [row["file"] for row in rows if "error" in row] == [str(broken)]
    good = [row for row in rows if "label" in row]
    assert [row["label"] for row in good] == [CLASSES[place] for place in found.argmax(axis=1)]
    assert [row["probability"] for row in good] == pytest.approx(found.max(axis=1).tolist(), abs=1e-4)
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(map(str, paths))))
    assert daptune("predict", adapter, "-", "--transductive").rows == good

    words = ("predict", adapter, pictures, "--transductive", "--out", "rows.jsonl", "--batch-size", "4")
    append, calls = RowLog.append, []

    def stopped(log: RowLog, rows: Any) -> None:
        calls.append(rows)
        if len(calls) == 3:
            raise KeyboardInterrupt
        append(log, rows)

    with monkeypatch.context() as patch:
        patch.setattr(RowLog, "append", stopped)
        assert daptune(*words).code == 130
    done = daptune("predict", adapter, pictures, "--out", "rows.jsonl", "--batch-size", "4")
    assert done.code == 2 and "holds a run with another transductive" in done.err
    assert daptune(*words).code == 0
    written = [json.loads(line) for line in Path("rows.jsonl").read_text().splitlines()]
    assert [row["file"] for row in written] == [row["file"] for row in rows]
    assert [row.get("label") for row in written] == [row.get("label") for row in rows]
    rejected = daptune("predict", adapter, pictures, "--transductive", "--reject", "0.1").rows
    known = [row["known"] for row in rejected if "label" in row]
    assert known == pytest.approx(fitted.predict_known(paths).tolist(), abs=1e-4)


def test_what_does_not_go_with_a_set_is_one_line(daptune: Command, adapter: Path, pictures: Path) -> None:
    for words, message in (
        ((adapter, pictures, "--shard", "1/2"), "--shard 1/2 to parts of them; leave out one"),
        ((adapter, pictures, "--executor", "ray"), "--executor ray to parts of them; leave out one"),
        ((adapter, pictures, "--sets", "0.1"), "leave out --sets, or --transductive"),
        (("model.onnx", pictures), "model.onnx gives no image features, which --transductive needs"),
    ):
        done = daptune("predict", *words, "--transductive")
        assert done.code == 2 and not done.out and message in done.err and done.err.count("\n") == 1, done.err
    few = daptune("predict", adapter, pictures / "red" / "0.png", "--transductive")
    assert few.code == 0 and "a set needs 8 images or more, found 1; they are answered alone" in few.err
    assert few.rows == daptune("predict", adapter, pictures / "red" / "0.png").rows


def test_predict_for_other_tools(daptune: Command, adapter: Path, pictures: Path) -> None:
    """The rows are those of JSON lines; to a file as to standard output."""
    files = [*sorted((pictures / "red").iterdir()), Path("gone.png")]
    rows = daptune("predict", adapter, *files).rows
    done = daptune("predict", adapter, *files, "--format", "fiftyone", "--batch-size", "4")
    labels = done.json["labels"]
    assert list(labels) == [*map(str, files[:-1]), str(Path.cwd() / "gone.png")] and labels.popitem()[1] is None
    assert [(found["label"], found["confidence"]) for found in labels.values()] == [
        (row["label"], row["probability"]) for row in rows[:-1]
    ]
    assert done.code == 0 and done.err == (
        "daptune: warning: rows without a label, as they could not be read: 1; JSON lines say why\n"
    )
    assert daptune("predict", adapter, *files, "--format", "labelstudio", "--out", "tasks.json").out == ""
    tasks = json.loads(Path("tasks.json").read_text("utf-8"))
    assert [task["data"]["file"] for task in tasks] == [row["file"] for row in rows]
    assert [task["predictions"][0]["result"][0]["value"]["choices"] for task in tasks[:-1]] == [
        [row["label"]] for row in rows[:-1]
    ]


def test_predict_frames_of_a_film(daptune: Command, adapter: Path, pictures: Path) -> None:
    pytest.importorskip("av", reason="films need the extra `video`")
    film = make_film(Path("film.mp4"), size=(40, 36))
    done = daptune("predict", adapter, film, pictures / "red" / "1.png", "--every", "1s")
    assert done.code == 0 and not done.err
    assert [row["file"] for row in done.rows] == [
        *(f"film.mp4@{second}.000s" for second in range(3)), str(pictures / "red" / "1.png")
    ]  # fmt: skip
    for second, row in enumerate(done.rows[:3]):  # the film shows the colours of COLOURS
        Image.new("RGB", (40, 36), COLOURS[second]).save("frame.png")
        (same,) = daptune("predict", adapter, "frame.png").rows
        assert row["label"] == same["label"] and row["probability"] == pytest.approx(same["probability"], abs=0.05)
    Path("empty.mp4").write_bytes(b"")
    done = daptune("predict", adapter, "empty.mp4", "--every", "1s")
    assert done.code == 2 and done.rows[0]["error"].startswith("empty.mp4: damaged, or no film; expected MP4")
    assert done.err == "daptune: error: none of the 1 files could be read; each row says why\n"
    for words, said in (
        (("--every", "soon"), "--every must be a time such as 1s, 500ms or 2min; found 'soon'"),
        (("--every", "1s", "--executor", "ray"), "--every decodes films in this process"),
        (("--every", "1s", "--format", "fiftyone"), "film.mp4@0.000s is no image file, which other tools need"),
    ):
        done = daptune("predict", adapter, film, *words)
        assert done.code == 2 and said in done.err and done.err.count("\n") == 1, done.err


def test_predict_boxes_of_a_detector(daptune: Command, adapter: Path, pictures: Path) -> None:
    """A box is labelled as the file of its part is; what is odd about boxes is told by kind."""
    both = Image.new("RGB", (80, 36))
    parts = {(0, 0, 40, 36): pictures / "red" / "1.png", (40, 0, 80, 36): pictures / "blue_thing" / "2.png"}
    for box, path in parts.items():
        both.paste(Image.open(path), box[:2])
    folder = Path("pictures")
    folder.mkdir()
    both.save(folder / "both.png")
    both.save(folder / "bare.png")
    Path("boxes.csv").write_text(
        "image,x0,y0,x1,y1,score\nboth.png,0,0,40,36,0.9\ngone.png,0,0,1,1,0.5\nboth.png,40,0,90.5,36,0.8\n"
        "both.png,80,0,99,36,0.5\nboth.png,-9,-9,0,9,0.5\nboth.png,5,5,5,9,0.5\n"
    )
    words = ("predict", adapter, folder, "--boxes", "boxes.csv")
    done = daptune(*words, "--batch-size", "2")
    assert [(row["file"], row["box"]) for row in done.rows] == [
        ("both.png", [0, 0, 40, 36]), ("both.png", [40, 0, 90.5, 36]), ("both.png", [80, 0, 99, 36]),
        ("both.png", [-9, -9, 0, 9]), ("both.png", [5, 5, 5, 9]), ("gone.png", [0, 0, 1, 1]),
    ]  # fmt: skip
    alone = daptune("predict", adapter, *parts.values()).rows
    assert [(row["label"], row["probability"]) for row in done.rows[:2]] == [
        (row["label"], row["probability"]) for row in alone
    ]
    assert [row["error"] for row in done.rows[2:]] == [
        "both.png: the box 80, 0, 99, 36 lies outside its picture of 80 x 36 pixels.",
        "both.png: the box -9, -9, 0, 9 lies outside its picture of 80 x 36 pixels.",
        "both.png: the box 5, 5, 5, 9 has no area; expected x0 < x1 and y0 < y1.",
        "gone.png: No such file or directory.",
    ]
    assert done.err.splitlines() == [
        "daptune: warning: boxes.csv: boxes cut at the edge of their picture: 1",
        "daptune: warning: boxes.csv: boxes outside their picture: 2",
        "daptune: warning: boxes.csv: boxes without area: 1",
        "daptune: warning: boxes.csv: images of pictures without a box, which have no row: 1",
    ]
    rows = list(csv.DictReader(io.StringIO(daptune(*words, "--format", "csv").out)))
    assert [[row[side] for side in ("x0", "y0", "x1", "y1")] for row in rows[:2]] == [
        ["0", "0", "40", "36"], ["40", "0", "90.5", "36"]
    ]  # fmt: skip
    (found, none) = daptune(*words, "--format", "fiftyone").json["labels"].values()
    assert [box["bounding_box"] for box in found] == [[0, 0, 0.5, 1], [0.5, 0, 0.5, 1]] and none == []
    for more, said in (
        (("--every", "1s"), "--boxes goes without --every"),
        (("bare.png",), "--boxes expects one folder"),
    ):
        done = daptune(*words, *more)
        assert done.code == 2 and said in done.err and done.err.count("\n") == 1
