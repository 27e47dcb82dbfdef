"""Images with several labels from a fit to every place that meets the adapter.

The pictures are stripes of the three colours: which of them are there are the labels, of unbalanced classes. What
`compare` and `tune` say of them is tested with these.
"""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import average_precision_score

import daptune
from daptune.adapter import record
from daptune.adapter.record import read_record
from daptune.classifier import FewShotClassifier
from daptune.clip.backbone import load_backbone
from daptune.errors import AdapterError, DataError, MethodError
from daptune.evaluate import measure
from daptune.measured import Presence

from .conftest import SHARES

SHORT = {"epochs": 6, "batch_size": 6, "lr": 0.02}
OPTIONS = {"text_tokens": 4, "vision_tokens": 4}


@pytest.fixture(scope="module")
def table(stripes_table: Path) -> Path:
    return stripes_table


@pytest.fixture(scope="module")
def several(table: Path, made_up_backbone: str) -> FewShotClassifier:
    """DAPT fitted to the stripes; not to be changed."""
    classifier = FewShotClassifier(
        "dapt", made_up_backbone, shots=8, multi_label=True, method_options=OPTIONS, train_options=SHORT
    )
    return classifier.fit(table)


@pytest.fixture(scope="module")
def folder(several: FewShotClassifier, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return several.save(tmp_path_factory.mktemp("several") / "adapter")


def held_out(table: Path) -> tuple[list[str], np.ndarray]:
    """Paths and labels (n, C) of the test pictures, read by hand."""
    with open(table, newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    shown = [[name in row["label"].split("|") for name in SHARES] for row in rows]
    return [str(table.parent / row["path"]) for row in rows], np.array(shown)


def test_the_answers_are_sigmoids_above_thresholds_of_validation(several: FewShotClassifier, table: Path) -> None:
    paths, truth = held_out(table)
    images = torch.stack([several.preprocess(Image.open(path)) for path in paths])
    with torch.no_grad():
        logits = several.method_.logits(images).double().numpy()
    bias = 10 * several.method_.sigmoids.bias.detach().double().numpy()
    expected = 1 / (1 + np.exp(-(logits + bias) / several.record_.temperature))
    found = several.predict_proba(paths)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert np.ptp(found.sum(axis=1)) > 0.1  # no distribution over the classes
    levels = np.array(several.record_.thresholds)
    names = list(SHARES)
    for row, labels in zip(expected, several.predict(paths), strict=True):
        order = sorted((c for c in range(3) if row[c] >= levels[c]), key=lambda c: -row[c])
        assert labels == [names[c] for c in order]
    measured = several.evaluate(table)
    assert isinstance(measured, Presence) and several.score(table) == measured.headline
    there = truth.any(axis=0)
    assert measured.headline == pytest.approx(
        average_precision_score(truth[:, there], expected[:, there], average="macro")
    )
    assert (
        several.score(paths, [[n for n, s in zip(names, row, strict=True) if s] for row in truth]) == measured.headline
    )
    assert several.score(paths, truth) == measured.headline
    held = measure(several.method_, several.val_table_, temperature=several.record_.temperature)
    for c in range(3):
        f1 = [
            _f1(held.labels[:, c], held.probabilities[:, c] >= level)
            for level in (levels[c], *held.probabilities[:, c])
        ]
        assert f1[0] == pytest.approx(max(f1))


def _f1(y: np.ndarray, said: np.ndarray) -> float:
    return float(2 * (y & said).sum() / max(y.sum() + said.sum(), 1))


def test_what_was_learned_and_recorded(several: FewShotClassifier) -> None:
    assert several.train_table_.counts().min() >= 8 and several.method_.ensemble is None
    first, last = several.history_.rows[0], several.history_.rows[-1]
    assert last.losses["cross_entropy"] < first.losses["cross_entropy"] and last.losses["intra"] > 0
    assert first.accuracy is None and first.val_accuracy is None and 0 <= first.val_map <= 1
    data = json.loads(several.record_.to_json())
    assert data["format_version"] == 3 and len(data["thresholds"]) == 3 and "ensemble" not in data


def test_saved_and_loaded_it_answers_the_same(
    several: FewShotClassifier, folder: Path, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths, _ = held_out(table)
    loaded = daptune.load(folder)
    assert loaded.multi_label and loaded.predict(paths) == several.predict(paths)
    np.testing.assert_array_equal(loaded.predict_proba(paths), several.predict_proba(paths))
    assert read_record(folder).format_version == 3 and read_record(folder).multi_label
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    content = json.loads((copy / "adapter.json").read_text("utf-8"))
    for wrong in ([0.5, 0.5], [0.5, 2, 0.5], "half", [0.5, None, 0.5]):
        (copy / "adapter.json").write_text(json.dumps(content | {"thresholds": wrong}))
        with pytest.raises(AdapterError, match="'thresholds' must be None or a probability for every class"):
            read_record(copy)
    monkeypatch.setattr(record, "FORMAT_VERSION", 2)  # an earlier version
    with pytest.raises(AdapterError, match="made by a newer daptune: format 3, this version reads up to 2; update"):
        read_record(folder)


def test_a_fit_is_the_same_again_and_resumes_to_the_same_bits(
    table: Path, made_up_backbone: str, tmp_path: Path
) -> None:
    made = [
        FewShotClassifier("coop", made_up_backbone, shots=4, multi_label=True, train_options=SHORT) for _ in range(2)
    ]
    whole = made[0].fit(table).method_.state_dict()
    steps: list[int] = []

    def stop(state: Any) -> None:
        steps.append(state.step)
        if len(steps) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made[1].set_params(train_options=SHORT | {"checkpoint_seconds": 0.0}).fit(
            table, run_dir=tmp_path, progress=stop
        )
    resumed = made[1].fit(table, run_dir=tmp_path, resume=True).method_.state_dict()
    assert whole.keys() == resumed.keys() and "sigmoids.bias" in whole
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_an_indicator_matrix_comes_back_as_one(table: Path, made_up_backbone: str, tmp_path: Path) -> None:
    paths, truth = held_out(table)
    classifier = FewShotClassifier(
        "coop",
        made_up_backbone,
        multi_label=True,
        class_names=list(SHARES),
        train_options={"epochs": 1, "batch_size": 4},
    )
    found = classifier.fit(paths, truth.astype(int)).predict(paths)
    assert found.shape == truth.shape and set(np.unique(found)) <= {0, 1}
    assert classifier.record_.thresholds == [0.5] * 3 and classifier.method_.class_names == tuple(SHARES)
    np.testing.assert_array_equal(found, classifier.predict_proba(paths) >= 0.5)
    assert isinstance(daptune.load(classifier.save(tmp_path / "a")).predict(paths[:1]), np.ndarray)


def test_zero_shot_has_a_bias_by_the_training_images_and_no_step(table: Path, made_up_backbone: str) -> None:
    classifier = FewShotClassifier("zero_shot", made_up_backbone, multi_label=True, calibrate="none").fit(table)
    assert not classifier.history_.rows and classifier.method_.sigmoids.bias.abs().min() > 0
    shares = (classifier.train_table_.counts() + 0.5) / (len(classifier.train_table_) + 1)
    np.testing.assert_allclose(
        classifier.predict_proba(list(classifier.train_table_.images)).mean(axis=0), shares, atol=1e-3
    )


def test_what_cannot_come_with_several_labels(
    several: FewShotClassifier, folder: Path, table: Path, made_up_backbone: str, tmp_path: Path
) -> None:
    paths, truth = held_out(table)
    for option, call in {
        "--sets": lambda: several.predict_sets(paths),
        "--reject": lambda: several.predict_known(paths),
        "--transductive": several.transductive,
        "suggest": lambda: daptune.suggest(several, paths, 2),
    }.items():
        with pytest.raises(DataError, match=f"^{option} is for images with one class"):
            call()
    with pytest.raises(MethodError, match="cannot take new class names"):
        several.with_classes(["a", "b"])
    for changes, fault in (
        ({"method": "tip_adapter"}, "tip_adapter learns one class per image"),
        ({"start_from": folder, "method": "dapt"}, "specific to its classes"),
        ({"train_options": {"sampling": "balanced"}}, "'balanced' draws by class"),
    ):
        made = FewShotClassifier(**{"method": "coop", "backbone": made_up_backbone, "multi_label": True} | changes)
        with pytest.raises(daptune.DaptuneError, match=fault):
            made.fit(table)
    with pytest.raises(MethodError, match="unlabelled images are of one class each"):
        FewShotClassifier("coop", made_up_backbone, multi_label=True).fit(table, unlabelled=paths)
    with pytest.raises(DataError, match="mAP weighs no images"):
        several.score(paths, truth, sample_weight=np.ones(len(paths)))


def test_rows_of_predictions(several: FewShotClassifier, table: Path, tmp_path: Path) -> None:
    from daptune.data.stream import Item
    from daptune.predict.rows import Wanted, predict_rows, write_rows

    paths, _ = held_out(table)
    rows = [row for rows in predict_rows(several, [Item(p, Path(p)) for p in paths], Wanted(top_k=2)) for row in rows]
    p, labels = several.predict_proba(paths), several.predict(paths)
    assert any(len(own) != 1 for own in labels)  # or the test shows nothing
    for row, own, values in zip(rows, labels, p, strict=True):
        assert [each["label"] for each in row["labels"]] == own and len(row["top"]) == 2
        for each in row["labels"]:
            assert each["probability"] == pytest.approx(
                values[several.classes_.tolist().index(each["label"])], abs=1e-6
            )
    write_rows(tmp_path / "rows.csv", lambda: rows, "csv", Wanted(top_k=2))
    with open(tmp_path / "rows.csv", newline="") as file:
        assert [row["label"] for row in csv.DictReader(file)] == ["|".join(own) for own in labels]
    parquet = pytest.importorskip("pyarrow.parquet")
    write_rows(tmp_path / "rows.parquet", lambda: rows, "parquet", Wanted(top_k=2))
    stored = parquet.read_table(tmp_path / "rows.parquet").to_pylist()
    assert [row["label"] for row in stored] == ["|".join(own) for own in labels]
    assert [row["probability"].count("|") + 1 if row["label"] else 0 for row in stored] == list(map(len, labels))
    numbers = [
        {**row, "labels": [{**e, "label": place} for place, e in enumerate(row["labels"])],
         "top": [{**e, "label": place} for place, e in enumerate(row["top"])]} for row in rows
    ]  # fmt: skip
    write_rows(tmp_path / "numbers.parquet", lambda: numbers, "parquet", Wanted(top_k=2))
    assert parquet.read_table(tmp_path / "numbers.parquet").to_pylist()[0]["label_2"] == 1
    with pytest.raises(DataError, match="the format of another tool is for images with one class"):
        next(predict_rows(several, [], Wanted(paths=True)))


def test_an_exported_file_gives_the_same_sigmoids(folder: Path, table: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    from daptune.export.onnx_file import export_onnx
    from daptune.export.weights import export_weights
    from daptune.predict.onnx import OnnxClassifier

    paths, _ = held_out(table)
    loaded = daptune.load(folder, precision="fp32")
    done = export_onnx(loaded, tmp_path / "m.onnx", images=table.parent)
    model = OnnxClassifier(tmp_path / "m.onnx")
    np.testing.assert_allclose(model.predict_proba(paths), loaded.predict_proba(paths), atol=1e-4)
    assert model.predict(paths) == loaded.predict(paths) and done.agreement.top1 == 1
    assert model.metadata.format_version == 3
    with pytest.raises(DataError, match="--to text-weights is for images with one class"):
        export_weights(loaded, tmp_path / "w.npy")


def test_a_server_names_every_class_above_its_threshold(folder: Path, table: Path, made_up_backbone: str) -> None:
    pytest.importorskip("fastapi")
    from starlette.testclient import TestClient

    from daptune.serve.app import make_app
    from daptune.serve.pool import AdapterPool

    paths, _ = held_out(table)
    loaded = daptune.load(folder, precision="fp32")
    pool = AdapterPool(load_backbone(made_up_backbone, precision="fp32"))
    pool.add(folder, "stripes")
    with TestClient(make_app(pool), base_url="http://127.0.0.1:8000") as client:
        assert client.get("/v1/adapters").json()[0]["multi_label"] is True
        files = [("files", (Path(path).name, Path(path).read_bytes(), "image/png")) for path in paths]
        answers = client.post("/v1/adapters/stripes/predict", files=files).json()["predictions"]
        assert [[each["label"] for each in row["labels"]] for row in answers] == loaded.predict(paths)
        assert all(len(row["top"]) == 3 for row in answers)
        refused = client.post("/v1/adapters/stripes/predict?zero_shot=true", files=files[:1])
        assert refused.status_code == 422 and "judges each class by itself" in refused.json()["error"]


def test_the_commands(table: Path, made_up_backbone: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from daptune.cli import run

    def said(*words: object) -> str:
        code = run([str(word) for word in words])
        captured = capsys.readouterr()
        assert code == 0, captured.err
        return captured.out

    out = tmp_path / "adapter"
    short = ["--epochs", 2, "--batch-size", 6, "--shots", 4, "--backbone", made_up_backbone]
    told = said("fit", table, "--multi-label", "--method", "coop", *short, "--out", out)
    assert "mAP" in told and "micro-F1" in told and "each class by itself" in told and "accuracy" not in told
    held = read_record(out).metrics["held_out"]
    found = json.loads(said("eval", out, table, "--json"))
    assert found["mean_average_precision"] == pytest.approx(held["coop"]["mean_average_precision"])
    assert "average precision" in said("eval", out, table)
    assert "thresholds" in said("show", out) and "mAP" in said("show", out)
    rows = [json.loads(line) for line in said("predict", out, table.parent / "0.png").splitlines()]
    assert list(rows[0]) == ["file", "labels"]
    assert said("predict", out, table.parent / "0.png", "--format", "csv").startswith("file,label,probability,error")
    pytest.importorskip("matplotlib")
    said("report", out, "--images", table, "--out", tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text("utf-8")
    for words in (
        "mean average precision (mAP)",
        "Classes that were missed",
        "Classes that are not there",
        "threshold",
    ):
        assert words in page
    assert "Calibration" not in page and "recall" not in page.lower()
    rows = [line.rsplit(",", 1)[0] for line in table.read_text("utf-8").splitlines()]
    (table.parent / "whole.csv").write_text("\n".join(rows) + "\n")  # without a split column: a part is held out
    told = said("fit", table.parent / "whole.csv", "--multi-label", "--method", "coop", *short, "--out", tmp_path / "b")
    assert "validation images (split val) would set that of each class" in told and "20% of the images" in told
    assert read_record(tmp_path / "b").thresholds == [0.5] * 3
    told = said("report", tmp_path / "b", "--images", table.parent / "whole.csv", "--out", tmp_path / "b.html")
    assert "held out of training" in told and "split val" in told


def test_the_command_of_a_record_says_so(several: FewShotClassifier) -> None:
    from daptune.report.fit_command import recorded_command

    words = recorded_command(several.record_)
    assert "--multi-label" in words and "--ensemble" not in words


def test_a_repeated_composite_task(tmp_path: Path) -> None:
    """The task of docs/multi-label.md is the same for a seed, and its pictures stay within their split."""
    from daptune.data.sources import read_source
    from studies.multi_label import compose, pictures

    sizes = {"train": 150, "val": 5, "test": 10}
    first, again = (compose("icons", tmp_path / name, sizes=sizes) for name in "ab")
    assert first.read_text() == again.read_text()
    assert (tmp_path / "a" / "train-0003.png").read_bytes() == (tmp_path / "b" / "train-0003.png").read_bytes()
    splits = read_source(first, multi_label=True)
    assert len(splits.train) == 150 and splits.train.spread()[0] < splits.train.spread()[1]
    assert 0 < (~splits.train.labels.any(axis=1)).sum() < 40 and splits.train.labels.sum(axis=1).max() > 1
    parts = pictures("icons")
    assert not {p for own in parts["train"].values() for p in own} & {p for own in parts["test"].values() for p in own}
