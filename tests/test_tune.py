"""The search for settings: what it looks at, that it goes on, and what it says to type."""

import json
import shlex
import time
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from daptune.classifier import FewShotClassifier
from daptune.cli import run as cli
from daptune.cli.options import FitOptions
from daptune.cli.tune import images
from daptune.data.sources import read_source
from daptune.errors import DataError, Interrupted, MethodError, TrainingError
from daptune.tune import BEST, TrialRow, prepare, run_search

optuna = pytest.importorskip("optuna")
SMALL = {"text_tokens": 2, "vision_tokens": 2}


def unfitted(backbone: str, method: str = "dapt", **train: object) -> FewShotClassifier:
    options = SMALL if method == "dapt" else {}
    return FewShotClassifier(
        method, backbone, method_options=options, train_options={"epochs": 2, "batch_size": 8} | train, precision="fp32"
    )


def test_what_is_searched(made_up_backbone: str, pictures: Path) -> None:
    table = read_source(pictures).train
    search = prepare(unfitted(made_up_backbone), table, None)
    assert search.defaults == {"lr": 0.01, "inter_weight": 0.1, "intra_weight": 0.1}
    assert search.how == "3-fold cross-validation of 30 images"
    for train, val in search.parts:
        assert set(train.counts().tolist()) <= {6, 7}
        assert not {str(p) for p in train.images} & {str(p) for p in val.images} and len(train) + len(val) == 30
    free = FewShotClassifier("coop", made_up_backbone, precision="fp32")
    (lr, epochs, tokens) = prepare(free, table, None).settings
    assert (lr.name, epochs.name, tokens.name) == ("lr", "epochs", "text_tokens")
    assert lr.low < lr.default < lr.high and (epochs.low, epochs.default, epochs.high) == (50, 200, 400)
    assert tokens.choices == (2, 4, 8, 16)


def test_a_search_goes_on_where_it_was_stopped(made_up_backbone: str, pictures: Path, tmp_path: Path) -> None:
    table = read_source(pictures).train
    search = prepare(unfitted(made_up_backbone), table, None, folds=2)
    seen: list[TrialRow] = []

    def stop(row: TrialRow) -> None:
        seen.append(row)
        if len(seen) == 2:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="repeat the command to resume"):
        run_search(search, tmp_path / "run", trials=4, tell=stop)
    assert seen[0].is_default and seen[0].accuracy is not None
    later: list[TrialRow] = []
    rows = run_search(search, tmp_path / "run", trials=4, tell=later.append)
    assert len(rows) == 4 and [row.number for row in later] == [3, 4]
    assert run_search(search, tmp_path / "run", trials=4, tell=later.append) == rows and len(later) == 2
    scores = [row.accuracy for row in rows if row.accuracy is not None]
    assert scores == sorted(scores, reverse=True) and any(row.is_default for row in rows)
    best = json.loads((tmp_path / "run" / BEST).read_text())
    assert best["accuracy"] == rows[0].accuracy and best["train_options"]["lr"] == rows[0].params["lr"]

    other = prepare(unfitted(made_up_backbone, batch_size=4), table, None, folds=2)
    with pytest.raises(TrainingError, match=r"holds another search: options.batch_size is 8 there and 4 now"):
        run_search(other, tmp_path / "run")


def test_the_accuracy_is_that_of_fitting_by_hand(made_up_backbone: str, pictures: Path, tmp_path: Path) -> None:
    table = read_source(pictures).train
    search = prepare(unfitted(made_up_backbone), table, None, folds=2)
    (row,) = run_search(search, tmp_path / "run", trials=1)
    right = 0.0
    for train, val in search.parts:
        classifier = unfitted(made_up_backbone).set_params(shots=None, ensemble="none").fit(train)
        right += classifier.score(list(val.images), classifier.classes_[val.labels]) * len(val)
    assert row.accuracy == pytest.approx(right / 30)


def test_a_learning_rate_too_high_ends_the_trial_alone(made_up_backbone: str, pictures: Path, tmp_path: Path) -> None:
    search = prepare(unfitted(made_up_backbone, lr=1e30), read_source(pictures).train, None, folds=2)
    (row,) = run_search(search, tmp_path / "run", trials=1)
    assert row.accuracy is None and not (tmp_path / "run" / BEST).exists()


def test_no_test_image_is_looked_at(pictures: Path, tmp_path: Path) -> None:
    options = FitOptions(shots=None, seed=3)
    table, val = images(pictures, options)
    assert val is None and len(table) == 24
    from daptune.data.fewshot import split_holdout

    _, held = split_holdout(read_source(pictures).train, 0.2, 3)
    assert held is not None and not {str(p) for p in table.images} & {str(p) for p in held.images}
    for split, numbers in (("test", range(3)), ("val", range(3, 5)), ("train", range(5, 10))):
        for name in ("blue_thing", "green thing", "red"):
            for number in numbers:
                target = tmp_path / "splits" / split / name / f"{number}.png"
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes((pictures / name / f"{number}.png").read_bytes() if split != "test" else b"no image")
    table, val = images(tmp_path / "splits", options)
    assert val is not None and (len(table), len(val)) == (15, 6)
    assert {path.parts[-3] for path in map(Path, map(str, table.images + val.images))} == {"train", "val"}


def test_the_command_line(
    made_up_backbone: str, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["tune", str(pictures), "--backbone", made_up_backbone, "--out", str(tmp_path / "run"), "--shots", "2"]
    words += ["--epochs", "2", "--set", "text_tokens=2", "--trials", "1", "--train", "schedule=constant"]
    words += ["--train", "clip_norm=none", "--train", "accumulate=2"]
    assert cli([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["trials"] == 1 and found["best"]["accuracy"] == found["default_accuracy"]
    assert cli(words) == 0
    shown = capsys.readouterr().out
    assert "test images are not used" in shown and "defaults" in shown
    command = shlex.split(found["command"])
    assert command[:3] == ["daptune", "fit", str(pictures)] and " ".join(command[3:]).startswith("--method dapt")
    assert {"text_tokens=2", "inter_weight=0.1", "vision_tokens=16"} <= set(command) and "--epochs" in command
    assert {"schedule=constant", "clip_norm=none", "--accumulate"} <= set(command)
    assert cli([*command[1:], "--out", str(tmp_path / "adapter"), "--json"]) == 0


def test_several_labels_are_scored_by_the_map(made_up_backbone: str, stripes_table: Path, tmp_path: Path) -> None:
    splits = read_source(stripes_table, multi_label=True)
    classifier = unfitted(made_up_backbone, lr=0.02).set_params(multi_label=True)
    for val, how in ((splits.val, "12 validation images"), (None, "2-fold cross-validation of 36 images")):
        search = prepare(classifier, splits.train, val, folds=2)
        assert search.how == how
        (row,) = run_search(search, tmp_path / how, trials=1)
        total = 0.0
        for train, held in search.parts:
            fitted = unfitted(made_up_backbone, lr=0.02).set_params(multi_label=True, shots="all", calibrate="none")
            p = fitted.fit(train).predict_proba(list(held.images))
            there = held.labels.any(axis=0)
            total += len(held) * average_precision_score(held.labels[:, there], p[:, there], average="macro")
        assert row.accuracy == pytest.approx(total / (12 if val is not None else 36))
        best = json.loads((tmp_path / how / BEST).read_text())
        assert best["mean_average_precision"] == best["default_mean_average_precision"] == row.accuracy
        assert "accuracy" not in best
    none = splits.train.subset(np.flatnonzero(~splits.train.labels.any(axis=1)))
    assert len(none)
    with pytest.raises(DataError, match="no class is there on the images to validate on"):
        prepare(classifier, splits.train, none)
    with pytest.raises(MethodError, match="tip_adapter_f learns one class per image"):
        prepare(unfitted(made_up_backbone, "tip_adapter_f").set_params(multi_label=True), splits.train, None)


def test_a_search_by_map_is_another_than_one_by_accuracy(made_up_backbone: str, pictures: Path, tmp_path: Path) -> None:
    """Also where every image happens to have one label."""
    one, several = (read_source(pictures, multi_label=several).train for several in (False, True))
    assert one.fingerprint() == several.fingerprint()
    run_search(prepare(unfitted(made_up_backbone), one, None, folds=2), tmp_path, trials=1)
    by_map = prepare(unfitted(made_up_backbone).set_params(multi_label=True), several, None, folds=2)
    with pytest.raises(TrainingError, match="holds another search"):
        run_search(by_map, tmp_path, trials=1)


def test_the_command_line_of_several_labels(
    made_up_backbone: str, stripes_table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["tune", str(stripes_table), "--backbone", made_up_backbone, "--out", str(tmp_path / "run"), "--method"]
    words += ["coop", "--epochs", "2", "--batch-size", "8", "--trials", "2", "--multi-label"]
    assert cli([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["measured"] == "12 validation images" and 0 < found["best"]["mean_average_precision"] <= 1
    assert found["best"]["mean_average_precision"] >= found["default_mean_average_precision"]
    assert cli(words) == 0
    shown = capsys.readouterr().out
    assert "mAP" in shown and "accuracy" not in shown
    command = shlex.split(found["command"])
    assert "--multi-label" in command
    assert cli([*command[1:], "--out", str(tmp_path / "adapter"), "--json"]) == 0


def test_bad_input(made_up_backbone: str, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = read_source(pictures).train
    with pytest.raises(MethodError, match="zero_shot is not trained by gradient steps"):
        prepare(unfitted(made_up_backbone, "zero_shot"), table, None)
    with pytest.raises(DataError, match="2 images of each class, found 1 of 'blue_thing'"):
        prepare(unfitted(made_up_backbone), table.subset([0, 10, 11, 20, 21]), None)
    with pytest.raises(DataError, match="--folds must be at least 2"):
        prepare(unfitted(made_up_backbone), table, None, folds=1)
    assert cli(["tune", str(pictures), "--trials", "0"]) == 2
    assert "--trials and --minutes must be above 0" in capsys.readouterr().err


def test_a_search_ends_in_time(made_up_backbone: str, pictures: Path, tmp_path: Path) -> None:
    search = prepare(unfitted(made_up_backbone), read_source(pictures).train, None, folds=2)
    began = time.monotonic()
    rows = run_search(search, tmp_path / "run", trials=10_000, minutes=1 / 60)
    assert 1 <= len(rows) < 1000 and time.monotonic() - began < 30
    assert any(row.is_default and row.accuracy is not None for row in rows)
