"""The page of one fit: figures agree with predictions made anew, wrong labels are found, names are text."""

import csv
import html
import json
import re
import shlex
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import log_loss

import daptune
from daptune.adapter import drawn as drawn_module
from daptune.adapter.drawn import held_out_images
from daptune.adapter.record import read_record
from daptune.cli import run
from daptune.cli.report import find_fit
from daptune.data import heldout
from daptune.data.cache import Decoder
from daptune.data.heldout import draw_readable, hold_out
from daptune.data.sources import read_source
from daptune.errors import DataError
from daptune.metrics import expected_calibration_error
from daptune.report.fit_charts import confusion_figure, loss_figures
from daptune.report.svg import span_of_accuracies
from daptune.train.history import EpochRow

from ..conftest import CLASSES, COLOURS, save_picture
from .reading import Elements, outside, table


def test_scores_and_classes_are_those_of_the_held_out_images(fit_report: Path, fitted_folder: Path) -> None:
    classifier = daptune.load(fitted_folder / "adapter")
    images = held_out_images(classifier.record_, fitted_folder / "pictures")
    assert images.test is not None and images.train is not None and len(images.test) == 6
    p, labels = classifier.predict_proba(images.test), images.test.labels
    scores = {row["method"]: row for row in table(fit_report, "scores")}
    right = 100 * (p.argmax(axis=1) == labels).mean()
    assert float(scores["dapt"]["accuracy, %"]) == pytest.approx(right, abs=1e-3)
    recorded = classifier.record_.metrics["held_out"]
    for name in ("dapt", "dapt alone", "zero_shot"):
        assert float(scores[name]["accuracy, %"]) == pytest.approx(100 * recorded[name]["accuracy"], abs=1e-3)
    text = fit_report.read_text("utf-8").replace("\u00a0", " ")
    alone = 100 * recorded["dapt alone"]["accuracy"]
    assert f"The learned prompts alone, without the ensemble, classify {alone:.1f} %." in text
    assert [path.name for path in fit_report.parent.rglob("*") if " " in path.name] == []
    error = 100 * expected_calibration_error(labels, p)
    assert float(scores["dapt"]["ECE, points ↓"]) == pytest.approx(error, abs=1e-3)
    by_class = {row["class"]: row for row in table(fit_report, "classes")}
    for name, value in recorded["dapt"]["per_class"].items():
        assert float(by_class[name]["recall, %"]) == pytest.approx(100 * value, abs=1e-3)


def test_scores_are_those_at_the_temperature_of_the_adapter(
    fit_report: Path, fitted_folder: Path, tmp_path: Path
) -> None:
    """The probabilities p of temperature 1 become those of 4: p^(1/4) over its sum. Zero-shot has no temperature."""
    moved = tmp_path / "adapter"
    moved.mkdir()
    for path in (fitted_folder / "adapter").iterdir():
        (moved / path.name).write_bytes(path.read_bytes())
    content = json.loads((moved / "adapter.json").read_text())
    (moved / "adapter.json").write_text(json.dumps(content | {"temperature": 4.0}))
    out = tmp_path / "warm.html"
    assert run(["report", str(moved), "--images", str(fitted_folder / "pictures"), "--out", str(out)]) == 0
    classifier = daptune.load(fitted_folder / "adapter")
    test = held_out_images(classifier.record_, fitted_folder / "pictures").test
    assert test is not None
    p = classifier.predict_proba(test).astype(float)
    p /= p.sum(axis=1, keepdims=True)
    warm = p**0.25 / (p**0.25).sum(axis=1, keepdims=True)
    losses = [
        {row["method"]: float(row["negative log-likelihood, nats ↓"]) for row in table(page, "scores")}
        for page in (out, fit_report)
    ]
    for shares, found in zip((warm, p), losses, strict=True):
        assert found["dapt"] == pytest.approx(log_loss(test.labels, shares, labels=range(3)), abs=1e-3)
    assert abs(losses[0]["dapt"] - losses[1]["dapt"]) > 0.01 and losses[0]["zero_shot"] == losses[1]["zero_shot"]
    assert losses[0]["dapt alone"] == losses[1]["dapt alone"]  # the temperature is that of the whole answer


def test_the_images_learned_from_are_known_by_their_fingerprint(fitted_folder: Path, pictures: Path) -> None:
    record = read_record(fitted_folder / "adapter")
    images = held_out_images(record, fitted_folder / "pictures")
    assert images.train is not None and images.train.fingerprint() == record.data["fingerprint"]
    with pytest.raises(DataError, match="red"):
        held_out_images(record, pictures)


def test_other_images_are_measured_on_and_said_to_be_other(fitted_folder: Path, tmp_path: Path) -> None:
    record = read_record(fitted_folder / "adapter")
    for name in record.class_names:
        (tmp_path / "other" / name).mkdir(parents=True)
        (tmp_path / "other" / name / "x.png").write_bytes((fitted_folder / "pictures" / name / "9.png").read_bytes())
    images = held_out_images(record, tmp_path / "other")
    assert images.train is None and images.test is not None and len(images.test) == 3
    assert "not those that the adapter was trained on" in images.remark


def test_the_images_of_a_fit_are_found_again(tmp_path: Path) -> None:
    counts, folder = (4, 10, 7), tmp_path / "pictures"
    for place, (name, count) in enumerate(zip(CLASSES, counts, strict=True)):
        for number in range(count):
            save_picture(folder / name / f"{number}.png", COLOURS[name], 20 * place + number)

    def record(shots: int | None, seed: int, **data: Any) -> Any:
        return SimpleNamespace(multi_label=False, class_names=CLASSES, shots=shots, seed=seed, data=data)

    splits = hold_out(read_source(folder), 0.3, 5)[0]
    drawn = draw_readable(splits.train, 3, 5, None, Decoder()).train
    known = {"holdout": 0.3, "fingerprint": drawn.fingerprint()}
    found = held_out_images(record(3, 5, **known), folder)
    assert found.train is not None and set(found.train.images) == set(drawn.images)
    assert found.test is not None and splits.test is not None and set(found.test.images) == set(splits.test.images)
    assert found.name == "30 % of pictures, held out of training" and found.remark == ""
    other = held_out_images(record(3, 6, **known), folder)
    assert other.train is None and other.name == "all of pictures"
    assert "not those that the adapter was trained on" in other.remark
    whole = draw_readable(read_source(folder).train, None, 5, None, Decoder()).train
    none = held_out_images(record(None, 5, fingerprint=whole.fingerprint()), folder)
    assert none.test is None and "No images were held out" in none.remark
    assert none.train is not None and tuple(none.train.counts()) == counts


def test_all_images_of_a_large_source_are_found_again_without_the_unreadable_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "pictures"
    for place, name in enumerate(CLASSES):
        for number in range(4 + place):
            save_picture(folder / name / f"{number}.png", COLOURS[name], 20 * place + number)
    (folder / CLASSES[0] / "1.png").write_bytes(b"no image")
    for module in (heldout, drawn_module):
        monkeypatch.setattr(module, "CHECK_ALL", 5)
    whole = draw_readable(read_source(folder).train, None, 1, None, Decoder()).train
    assert len(whole) == 14
    data = {"fingerprint": whole.fingerprint()}
    found = held_out_images(
        SimpleNamespace(multi_label=False, class_names=CLASSES, shots=None, seed=1, data=data), folder
    )  # type: ignore[arg-type]
    assert found.train is not None and found.train.fingerprint() == whole.fingerprint()


def test_the_wrong_labels_are_shown(fit_report: Path, fitted_folder: Path) -> None:
    text = fit_report.read_text("utf-8")
    part = text[text.index('id="labels"') : text.index('id="maps"')]
    record = read_record(fitted_folder / "adapter")
    images = held_out_images(record, fitted_folder / "pictures")
    assert images.train is not None
    learned = {Path(str(image)).relative_to(fitted_folder / "pictures").as_posix() for image in images.train.images}
    planted = learned & {f"{record.class_names[1]}/0.png", f"{record.class_names[1]}/1.png"}
    assert planted and all(name in part for name in planted)
    assert part.count("data:image/webp;base64,") == part.count("<img")


def test_mistakes_have_a_map_each_and_classes_their_counts(fit_report: Path, fitted_folder: Path) -> None:
    text = fit_report.read_text("utf-8").replace("\u00a0", " ")
    part = text[text.index('id="mistakes"') : text.index('id="labels"')]
    wrong = part.count("predicted with")
    classifier = daptune.load(fitted_folder / "adapter")
    test = held_out_images(classifier.record_, fitted_folder / "pictures").test
    assert test is not None
    said = classifier.predict_proba(test).argmax(axis=1)
    assert wrong == (said != test.labels).sum() > 0
    assert part.count("where it looks for ") == wrong and part.count("<img") == 2 * wrong
    assert all(len(data) < 4 / 3 * 10_000 + 4 for data in re.findall(r"base64,([^\"]+)", part))
    rows = {row["class"]: row for row in table(fit_report, "classes")}
    for c, name in enumerate(classifier.record_.class_names):
        own = test.labels == c
        hits, count = int((said[own] == c).sum()), int(own.sum())
        interval = binomtest(hits, count).proportion_ci(method="wilson")
        words = f"{100 * interval.low:.0f} to {100 * interval.high:.0f}"
        assert rows[name]["95 % interval"] == words
        assert f"{hits} of {count}, {100 * hits / count:.0f} %, 95 % interval {words} %)" in text


def test_the_fit_command_is_the_one_that_was_typed(
    fit_report: Path, fitted_folder: Path, made_up_backbone: str
) -> None:
    text = html.unescape(fit_report.read_text("utf-8"))
    (typed,) = re.findall(r'<section id="repeat".*?<code>(.*?)\n', text, flags=re.DOTALL)
    words = ["daptune", "fit", str(fitted_folder / "pictures"), "--backbone", made_up_backbone]
    options = ["--set", "text_tokens=2", "--set", "vision_tokens=2", "--epochs", "3"]
    assert shlex.split(typed) == [*words, *options, "--out", str(fitted_folder / "adapter")]


def test_without_the_run_the_command_is_told_by_the_record(fitted_folder: Path, tmp_path: Path) -> None:
    moved, out = tmp_path / "adapter", tmp_path / "report.html"
    shutil.copytree(fitted_folder / "adapter", moved)
    assert run(["report", str(moved), "--out", str(out)]) == 0
    text = html.unescape(out.read_text("utf-8"))
    (typed,) = re.findall(r'<section id="repeat".*?<code>(.*?)\n', text, flags=re.DOTALL)
    words = shlex.split(typed)
    assert words[:5] == ["daptune", "fit", "IMAGES", "--method", "dapt"] and "text_tokens=2" in words


def test_zero_shot_alone_has_maps_of_its_own(fitted_folder: Path, made_up_backbone: str, tmp_path: Path) -> None:
    words = ["fit", str(fitted_folder / "pictures"), "--backbone", made_up_backbone, "--method", "zero_shot"]
    assert run([*words, "--out", str(tmp_path / "plain")]) == 0
    out = tmp_path / "report.html"
    folder = str(fitted_folder / "pictures")
    assert run(["report", str(tmp_path / "plain"), "--images", folder, "--out", str(out)]) == 0
    text = out.read_text("utf-8")
    assert "Images by class, zero_shot<" in text and "(before)" not in text
    assert "daptune fit " in text and "--method zero_shot" in text


def test_a_change_of_two_points_does_not_fill_an_axis() -> None:
    assert span_of_accuracies([54.0, 56.0]) == (42.5, 67.5)
    assert span_of_accuracies([99.0, 97.0]) == (75.0, 100.0) and span_of_accuracies([1.0]) == (0.0, 25.0)
    low, high = span_of_accuracies([10.0, 60.0])
    assert (low, high) == pytest.approx((6.0, 64.0))
    epochs = [EpochRow(n, n, 0.1, {"cross_entropy": 2 + n / 100}, 0.5, None, None, None, 1.0) for n in (1, 2)]
    for figure in loss_figures(epochs):
        assert re.search(r">(?:0|0\.0+)</text>", figure.svg), f"{figure.name} starts at zero"


def test_all_labels_are_in_a_file_least_probable_first(fit_report: Path, fitted_folder: Path) -> None:
    """Planted labels come first; what the page says is what the file and the same check made anew say."""
    record = read_record(fitted_folder / "adapter")
    train = held_out_images(record, fitted_folder / "pictures").train
    assert train is not None
    with (fit_report.parent / "report-files/labels.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    names = {Path(str(image)).relative_to(fitted_folder / "pictures").as_posix() for image in train.images}
    assert len(rows) == len(train) and {row["path"] for row in rows} == names
    own = [float(row["probability"]) for row in rows]
    assert own == sorted(own) and all(row["label"] == row["path"].partition("/")[0] for row in rows)
    planted = names & {f"{record.class_names[1]}/0.png", f"{record.class_names[1]}/1.png"}
    assert {row["path"] for row in rows[: len(planted)]} == planted
    assert all(row["most probable"] == record.class_names[0] for row in rows[: len(planted)])
    flagged = sum(row["flagged"] == "yes" for row in rows)
    text = fit_report.read_text("utf-8").replace("\u00a0", " ")
    assert f"of {len(train)} training labels are wrong by estimate, and {flagged} are flagged." in text


def test_the_page_is_sound_small_and_alone(fit_report: Path) -> None:
    text = fit_report.read_text("utf-8")
    elements = Elements(text)
    assert elements.errors == [] and outside(text) == [] and len(text.encode()) < 3_000_000
    assert [name for name, _ in elements.found].count("script") == 1
    assert any("<script>alert(1)<&>" in part for part in elements.text)
    sections = re.findall(r'<section id="([^"]+)"', text)
    assert sections == [
        "next", "says", "scores", "training", "classes", "calibration", "sure", "mistakes", "labels", "maps", "words",
        "repeat",
    ]  # fmt: skip


def test_without_images_it_tells_what_the_adapter_tells(fitted_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    assert run(["report", str(fitted_folder / "adapter.run"), "--out", str(out)]) == 0
    text = out.read_text("utf-8")
    assert "add --images FOLDER" in text and 'id="training"' in text and 'id="calibration"' not in text
    recorded = read_record(fitted_folder / "adapter").metrics["held_out"]["dapt"]["per_class"]
    for row in table(out, "classes"):
        assert float(row["dapt, %"]) == pytest.approx(100 * recorded[row["class"]], abs=1e-3)


def test_the_history_is_found_beside_the_adapter_or_named(fitted_folder: Path, tmp_path: Path) -> None:
    folder, history = find_fit([fitted_folder / "adapter"])
    assert folder == fitted_folder / "adapter" and history is not None and len(history.rows) == 3
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for path in (fitted_folder / "adapter").iterdir():
        (moved / path.name).write_bytes(path.read_bytes())
    assert find_fit([moved])[1] is None
    assert find_fit([moved, fitted_folder / "adapter.run"])[1] == history


def test_without_the_backbone_the_record_is_reported(
    fitted_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = tmp_path / "adapter"
    moved.mkdir()
    for path in (fitted_folder / "adapter").iterdir():
        (moved / path.name).write_bytes(path.read_bytes())
    content = json.loads((moved / "adapter.json").read_text())
    content["backbone"]["name"] = str(tmp_path / "gone.pt")
    (moved / "adapter.json").write_text(json.dumps(content))
    assert run(["report", str(moved), "--out", str(tmp_path / "r.html")]) == 0
    assert "only what is recorded in the adapter" in capsys.readouterr().err
    assert run(["report", str(moved), "--out", str(tmp_path / "r.html"), "--images", str(tmp_path)]) == 2


def test_a_confusion_matrix_of_too_many_classes_is_left_to_the_tables() -> None:
    matrix = np.eye(41, dtype=np.int64)
    assert confusion_figure(matrix, [str(n) for n in range(41)]) is None
    assert confusion_figure(matrix[:5, :5], list("abcde")) is not None


def test_a_folder_may_be_named_by_a_dot(fitted_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(fitted_folder / "adapter.run")
    folder, history = find_fit([Path(".")])
    assert folder == fitted_folder / "adapter" and history is not None
    monkeypatch.chdir(fitted_folder / "adapter")
    assert find_fit([Path(".")])[1] == history
