"""`daptune bench` as it is typed."""

import json
from pathlib import Path

import pytest

from daptune.cli import run as cli

from ..bench.helpers import TEXT, InThisProcess


@pytest.fixture
def plan(made_up_backbone: str, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A plan's file and a folder for its results; jobs run in this process."""
    file = tmp_path / "small.toml"
    text = TEXT.format(backbone=made_up_backbone, pictures=pictures).replace("[1, 2]", "[1]")
    wild = '{ method = "coop", label = "wild", train = { lr = 1e30 } },'
    file.write_text(text.replace('"zero_shot",', f'"zero_shot", {wild}'))
    monkeypatch.setattr("daptune.cli.bench.LocalProcesses", lambda processes: InThisProcess())
    return file, tmp_path / "run"


def test_a_table_at_the_end_and_failures_told(plan: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    file, run = plan
    words = ["bench", str(file), "--out", str(run)]
    assert cli([*words, "--list"]) == 0 and not run.exists()
    assert "missing" in capsys.readouterr().out
    assert cli(words) == 2
    done = capsys.readouterr()
    assert "zero_shot" in done.out and "coop_vpt" in done.out and "2 results in" in done.out
    assert "1 of 3 jobs failed, first fewshot, wild on" in done.err and f"{file} --out {run} --retry" in done.err
    assert "Traceback" not in done.err
    assert cli([*words, "--list", "--json"]) == 0
    states = {row["label"]: (row["done"], row["failed"], row["missing"]) for row in json.loads(capsys.readouterr().out)}
    assert states == {"zero_shot": (1, 0, 0), "wild": (0, 1, 0), "coop_vpt": (1, 0, 0)}


def test_map_of_several_labels_is_named(
    made_up_backbone: str,
    stripes_table: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file, run = tmp_path / "several.toml", tmp_path / "run"
    text = TEXT.format(backbone=made_up_backbone, pictures=stripes_table).replace("[1, 2]", "[2]")
    file.write_text("multi_label = true\n" + text)
    monkeypatch.setattr("daptune.cli.bench.LocalProcesses", lambda processes: InThisProcess())
    assert cli(["bench", str(file), "--out", str(run)]) == 0
    done = capsys.readouterr()
    assert "test images: mAP in %" in done.out and "test mAP " in done.err and "accuracy" not in done.out + done.err
    assert cli(["bench", str(file), "--out", str(run), "--json"]) == 0
    assert [table["figure"] for table in json.loads(capsys.readouterr().out)["tables"]] == ["mAP"]
    assert cli(["report", str(run), "--out", str(tmp_path / "report.html")]) == 2
    refused = capsys.readouterr().err
    assert refused.count("\n") == 1 and "was measured by mAP" in refused and "prints a table of mAP" in refused


def test_stopped_by_hand_it_says_how_to_go_on(
    plan: tuple[Path, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file, run = plan
    monkeypatch.setattr("daptune.cli.bench.LocalProcesses", lambda processes: InThisProcess(stop_after=1))
    assert cli(["bench", str(file), "--out", str(run)]) == 130
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == f"daptune: stopped; finished results are in {run}; run the same command to resume."


def test_the_ready_plans_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["bench"]) == 0
    assert {"fewshot", "demo", "base2new"} <= set(capsys.readouterr().out.split())
    assert cli(["bench", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["fewshot"].startswith("Figure 4 of the paper")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fewshoot"], "no plan 'fewshoot'. Did you mean 'fewshot'?"),
        (["demo", "--processes", "0"], "--processes must be at least 1"),
        (["demo", "--ray-address", "x:1"], "needs --executor ray"),
    ],
)
def test_bad_input_is_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["bench", *words]) == 2
    done = capsys.readouterr()
    assert message in done.err and done.err.count("\n") == 1 and not done.out
