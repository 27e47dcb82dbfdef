"""`daptune data` and what it makes of benchmark folders, as a user types it."""

import json
import re
import shutil
from pathlib import Path

import pytest

from daptune.cli import run
from daptune.data.benchmarks.registry import BENCHMARKS
from tests.conftest import CLASSES, COLOURS, save_picture
from tests.data.benchmarks.server import serving
from tests.data.benchmarks.test_prepare import published
from tests.data.benchmarks.trees import build


def test_list_has_every_data_set_with_its_counts(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "dtd").mkdir()
    assert run(["data", "list", "--root", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in BENCHMARKS)
    assert "1,281,167" in text
    assert run(["data", "list", "--root", str(tmp_path), "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["datasets"]}
    assert len(rows) == 15
    assert rows["dtd"]["present"] and not rows["eurosat"]["present"]
    assert (rows["eurosat"]["classes"], rows["eurosat"]["train"]) == (10, 13500)


def test_check_of_a_whole_set_and_of_half_a_one(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record, _ = build("oxford_pets", tmp_path)
    monkeypatch.setitem(BENCHMARKS, "oxford_pets", record)
    monkeypatch.setenv("DAPTUNE_DATA", str(tmp_path))
    assert run(["data", "check", "oxford_pets"]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert "annotations/trainval.txt" in shown.out
    (tmp_path / "oxford_pets" / "images" / "Abyssinian_100.jpg").unlink()
    assert run(["data", "check", "OxfordPets", "--json"]) == 2
    shown = capsys.readouterr()
    report = json.loads(shown.out)
    assert report["state"] == "half there"
    assert report["missing"] == ["Abyssinian_100.jpg"]
    assert shown.err == (
        "daptune: error: oxford_pets is half there: 1 images are missing, the first Abyssinian_100.jpg; "
        "`daptune data prepare oxford_pets` fetches what can be fetched\n"
    )
    assert run(["fit", "data:oxford_pets"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_check_of_an_unknown_name_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "check", "oxfordpet"]) == 2
    assert "Did you mean 'oxford_pets'" in capsys.readouterr().err


def test_prepare_fetches_and_says_what_is_left(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving() as server:
        published("eurosat", tmp_path / "elsewhere", server, monkeypatch)
        assert run(["data", "prepare", "eurosat", "--root", str(tmp_path / "data")]) == 0
        shown = capsys.readouterr()
        assert "EuroSAT.zip" in shown.out
        assert "By hand, into" in shown.err  # the split file could not be fetched
        assert "answers 404" in shown.err
        place = tmp_path / "data" / "eurosat" / "2750" / "Forest"
        next(place.iterdir()).unlink()
        assert run(["data", "prepare", "eurosat", "--root", str(tmp_path / "data")]) == 2
        assert "2750/ was there and may be half unpacked: remove it" in capsys.readouterr().err
        assert run(["data", "prepare", "imagenet", "--root", str(tmp_path / "data"), "--json"]) == 2
        shown = capsys.readouterr()
        assert json.loads(shown.out)["state"] == "absent"
        assert "register at https://image-net.org" in shown.err
        assert shown.err.splitlines()[-1].startswith("daptune: error: imagenet is absent")


def test_fit_and_eval_take_a_benchmark_by_name(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("eurosat", "imagenet_r"):
        record, _ = build(name, tmp_path)
        monkeypatch.setitem(BENCHMARKS, name, record)
    monkeypatch.setenv("DAPTUNE_DATA", str(tmp_path))
    out = tmp_path / "adapter"
    assert run(["fit", "data:eurosat", "--method", "coop", "--shots", "2", "--epochs", "1", "--out", str(out)]) == 0
    assert "was drawn with seed 1" in capsys.readouterr().err
    assert run(["eval", str(out), "data:eurosat", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 9
    assert run(["eval", str(out), "data:imagenet_r", "--new-classes", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 5
    assert run(["eval", str(out), "data:imagenet_r"]) == 2
    assert "--new-classes" in capsys.readouterr().err


def test_check_of_a_folder_counts_what_is_wrong(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    for split, counts in (("train", (3, 2, 4)), ("test", (1, 2, 1))):
        for place, (name, count) in enumerate(zip(CLASSES, counts, strict=True)):
            for number in range(count):
                seed = 100 * place + number + (50 if split == "test" else 0)
                save_picture(folder / split / name / f"{number}.png", COLOURS[name], seed)
    assert run(["data", "check", str(folder)]) == 0
    shown = capsys.readouterr()
    assert shown.err == "" and re.search(r"^ train +9 +3 +2 +0 +0 +0 +0", shown.out, flags=re.MULTILINE)
    first = folder / "train" / CLASSES[0] / "0.png"
    shutil.copy(first, folder / "train" / CLASSES[0] / "again.png")
    assert run(["data", "check", str(folder)]) == 0  # harmless
    shutil.copy(first, folder / "train" / CLASSES[1] / "9.png")
    shutil.copy(folder / "train" / CLASSES[2] / "1.png", folder / "test" / CLASSES[2] / "9.png")
    (folder / "test" / CLASSES[1] / "bad.png").write_bytes(b"no image")
    capsys.readouterr()
    assert run(["data", "check", str(folder), "--json"]) == 2
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    assert found["splits"] == {
        "train": {
            "images": 11, "classes": 3, "fewest": 3, "unreadable": 0, "in_two_classes": 1, "also_in_train": 0,
            "repeated": 1,
        },
        "test": {
            "images": 6, "classes": 3, "fewest": 1, "unreadable": 1, "in_two_classes": 0, "also_in_train": 1,
            "repeated": 0,
        },
    }  # fmt: skip
    assert len(found["problems"]) == 3
    last = shown.err.splitlines()[-1]
    assert last.startswith("daptune: error: ") and "1 of 6 images cannot be read" in last
    assert "identical to one of another class" in shown.err and "optimistic" in shown.err


def test_images_of_a_benchmark_are_compared_on_request(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record, _ = build("oxford_pets", tmp_path)
    monkeypatch.setitem(BENCHMARKS, "oxford_pets", record)
    code = run(["data", "check", "oxford_pets", "--images", "--root", str(tmp_path), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["source"] == "oxford_pets" and code == (2 if found["problems"] else 0)
    assert found["splits"]["test"]["images"] == record.counts[2]
