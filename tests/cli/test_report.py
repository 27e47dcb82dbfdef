"""`daptune report` on the command line: what it prints, and that bad input is one line and exit code 2."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from daptune.bench.datasets import read_dataset
from daptune.cli import run
from daptune.cli.report import images_of
from daptune.errors import DataError
from daptune.report.runs import read_runs
from daptune.report.svg import panel


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    capsys.readouterr()
    assert run(["report", *map(str, words)]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    return captured.err


def test_json(small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["report", str(small_run), "--out", str(tmp_path / "new" / "page.html"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["bytes"] == (tmp_path / "new/page.html").stat().st_size
    assert all(Path(path).is_file() for path in found["files"])
    assert "dapt classifies" in found["says"][0]


def test_a_second_report_is_the_same_file(small_run: Path, tmp_path: Path) -> None:
    out, pages = tmp_path / "report.html", []
    for _ in range(2):
        assert run(["report", str(small_run), "--out", str(out)]) == 0
        pages.append(out.read_bytes())
    assert pages[0] == pages[1]


def test_bad_input(
    bench_run: Path, adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "nothing to report on" in refused(capsys)
    assert "does not exist" in refused(capsys, "nowhere")
    assert "holds neither results.jsonl nor adapter.json" in refused(capsys, tmp_path)
    assert "not reported together" in refused(capsys, bench_run, adapter)
    assert "--images is for the report of one fit" in refused(capsys, bench_run, "--images", tmp_path)
    assert "--focus is for bench runs" in refused(capsys, adapter, "--focus", "dapt")
    assert "found 2 adapters" in refused(capsys, adapter, adapter)
    assert "must name an HTML file" in refused(capsys, bench_run, "--out", "report.pdf")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/results.jsonl").touch()
    assert "no finished result to report on" in refused(capsys, "empty")
    (tmp_path / "file").touch()
    assert "cannot be created" in refused(capsys, bench_run, "--out", "file/report.html")
    assert not list(tmp_path.glob("*.html"))


def test_test_images_are_those_of_bench(small_run: Path, tmp_path: Path) -> None:
    (result, *_) = read_runs([small_run]).results
    with pytest.raises(DataError, match="the test images of demo are not those of these results"):
        images_of(result, tmp_path)
    names = read_dataset("demo", tmp_path).train.class_names
    assert len(images_of(replace(result, class_names=names), tmp_path)) == 201
    with pytest.raises(DataError):
        images_of(replace(result, dataset="eurosat"), tmp_path)


def test_without_matplotlib_one_line_names_the_extra(
    small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "pip install 'daptune[report]'" in refused(capsys, small_run, "--out", tmp_path / "r.html")
    monkeypatch.undo()
    with panel() as (drawing, axes):
        assert drawing.axes == [axes]
