"""`daptune compare` and `daptune fit --method auto` as they are typed."""

import json
import re
from pathlib import Path

from daptune.choose.choice import CANDIDATES

from .conftest import Command

QUICK = ("--train", "epochs=2", "--train", "batch_size=8")


def test_compare_prints_a_table_with_intervals_and_saves_nothing(
    daptune: Command, pictures: Path, made_up_backbone: str
) -> None:
    words = ("compare", pictures, "--backbone", made_up_backbone, *QUICK, "--shots", "5")
    done = daptune(*words, "--methods", "zero_shot, prototype,linear_probe", "--folds", "3")
    assert done.code == 0, done.err
    for text in ("3-fold cross-validation of 15 images", "± is a 95 % interval", "nll", " best ", "Test images were"):
        assert text in done.out
    assert done.out.index("zero_shot") < done.out.index("prototype") < done.out.index("linear_probe")
    assert list(Path().iterdir()) == []
    found = daptune(*words, "--methods", "zero_shot,prototype", "--json").json
    assert [row["method"] for row in found["rows"]] == ["zero_shot", "prototype"] and found["best"] == "prototype"
    low, high = found["rows"][0]["interval"]
    assert low < found["rows"][0]["difference"] < high and found["rows"][0]["seconds"] >= 0


def test_compare_says_what_was_not_tried(daptune: Command, pictures: Path, made_up_backbone: str) -> None:
    words = ("compare", pictures, "--backbone", made_up_backbone, "--train", "epochs=100000", "--minutes", "1")
    done = daptune(*words, "--methods", "prototype,clip_adapter,taskres", "--shots", "4")
    assert done.code == 0, done.err
    rows = [line.split(maxsplit=1) for line in done.out.splitlines() if line.strip()]
    left_out = {name: what.strip() for name, what in (row for row in rows if len(row) == 2) if "not tried" in what}
    assert left_out and left_out.keys() <= {"clip_adapter", "taskres"}
    assert all(
        re.fullmatch(r"not tried: ([\d,]+ s needed, \d+ s left|no time left)", what) for what in left_out.values()
    )


def test_fit_chooses_and_says_why(daptune: Command, pictures: Path, made_up_backbone: str) -> None:
    words = ("fit", pictures, "--backbone", made_up_backbone, "--method", "auto", "--epochs", "2", "--shots", "4")
    done = daptune(*words, "--minutes", "0.5", "--out", "mine")
    assert done.code == 0, done.err
    record = json.loads(Path("mine/adapter.json").read_text())
    chosen = record["data"]["chosen"]
    assert record["method"] == chosen["method"] and {row["method"] for row in chosen["rows"]} == set(CANDIDATES)
    assert "± is a standard error" in done.out and f"chosen  {chosen['method']}, " in done.out
    (row,) = [line for line in done.out.splitlines() if line.split()[:1] == [chosen["method"]] and "chosen" in line]
    accuracy = next(row["accuracy"] for row in chosen["rows"] if row["method"] == chosen["method"])
    assert f"{100 * accuracy:.1f} % ± " in row
    assert daptune("eval", "mine", pictures).code == 0
    assert f"by cross-validation: {chosen['method']}, " in daptune("show", "mine").out
    as_json = daptune(*words, "--out", "other", "--minutes", "0.5", "--json")
    assert as_json.json["chosen"]["method"] in CANDIDATES and "held_out" in as_json.json


def test_fit_with_one_image_a_class(daptune: Command, pictures: Path, made_up_backbone: str) -> None:
    words = ("fit", pictures, "--backbone", made_up_backbone, "--method", "auto", "--epochs", "2", "--shots", "1")
    done = daptune(*words)
    assert done.code == 0, done.err
    reason = "(one image a class: none can be held out)"
    assert f"chosen  {CANDIDATES[0]}, the first in the order of preference {reason}" in done.out
    assert "nothing was compared" in done.out


def test_several_labels(daptune: Command, stripes_table: Path, made_up_backbone: str) -> None:
    words = ("compare", stripes_table, "--backbone", made_up_backbone, *QUICK, "--multi-label", "--folds", "2")
    done = daptune(*words, "--methods", "taskres,gda,zero_shot,lp_pp")
    assert done.code == 0, done.err
    assert "mAP" in done.out and "accuracy" not in done.out
    assert "Left out, since they learn one class per image: gda, lp_pp." in done.out
    assert "daptune fit FOLDER --method NAME --multi-label" in done.out
    found = daptune(*words, "--methods", "taskres,gda,zero_shot", "--json").json
    assert found["left_out"] == ["gda"] and [row["method"] for row in found["rows"]] == ["taskres", "zero_shot"]
    row = next(row for row in found["rows"] if row["method"] != found["best"])
    low, high = row["interval"]
    assert low < row["difference"] < high and 0 < row["mean_average_precision"] < 1 and "accuracy" not in row
    assert f"{100 * row['mean_average_precision']:.1f} % ± {196 * row['standard_error']:.1f}" in done.out
    refused = daptune(*words, "--methods", "gda")
    assert refused.code == 2 and "gda cannot learn several labels; name taskres" in refused.err


def test_fit_chooses_among_those_that_learn_several_labels(
    daptune: Command, stripes_table: Path, made_up_backbone: str
) -> None:
    words = ("fit", stripes_table, "--backbone", made_up_backbone, "--method", "auto", *QUICK, "--multi-label")
    done = daptune(*words, "--minutes", "0.3", "--out", "mine")
    assert done.code == 0, done.err
    record = json.loads(Path("mine/adapter.json").read_text())
    chosen = record["data"]["chosen"]
    left_out = ["tip_adapter", "prototype", "linear_probe", "lp_pp"]
    assert chosen["left_out"] == left_out and record["method"] == chosen["method"] and record["format_version"] == 3
    assert {*left_out, *(row["method"] for row in chosen["rows"])} == set(CANDIDATES)
    assert f"Left out, since they learn one class per image: {', '.join(left_out)}." in done.out
    assert f"chosen  {chosen['method']}, " in done.out
    assert f"by cross-validation: {chosen['method']}, " in daptune("show", "mine").out


def test_bad_input_is_one_line(daptune: Command, pictures: Path, made_up_backbone: str) -> None:
    cases = {
        ("compare", "--methods", "zero_shot,prototipe"): "There is no method 'prototipe'. Did you mean 'prototype'?",
        ("compare", "--methods", "auto"): "auto is no method to compare",
        ("compare", "--methods", ","): "no method to compare was named",
        ("compare", "--minutes", "0"): "--minutes must be above 0; found 0",
        ("compare", "--folds", "11"): "--folds is 11, but no class has more than 8 images",
        ("compare", "--shots", "1"): "needs 2 of a class, found 1 of each",
        ("compare", "--holdout", "2"): "--holdout must be a share between 0 and 1",
        ("fit", "--minutes", "2"): "--minutes limits the choice of --method auto",
        ("fit", "--method", "auto", "--minutes", "0"): "--minutes must be above 0; found 0",
        ("fit", "--method", "auto", "--set", "text_tokens=2"): "(--set) belongs to one method",
        ("fit", "--method", "auto", "--preset", "paper"): "preset belongs to one method",
        ("tune", "--method", "auto"): "name one of them here",
    }
    for (verb, *words), expected in cases.items():
        done = daptune(verb, pictures, "--backbone", made_up_backbone, *words)
        assert done.code == 2 and done.out == "", words
        errors = [line for line in done.err.splitlines() if not line.startswith("daptune: warning: ")]
        assert len(errors) == 1 and expected in errors[0], done.err
