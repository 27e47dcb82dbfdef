"""Without a terminal, plain lines on stderr say what is being done."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from daptune.cli import console
from daptune.cli.console import alive, note, progress, silent

from .conftest import Command


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """What was printed on stderr, which is no terminal, since the last call."""
    monkeypatch.setattr(console, "EVERY", 0.1)
    return lambda: capsys.readouterr().err


def test_a_line_every_while_and_for_every_part(told: Callable[[], str]) -> None:
    with alive("fit is starting"):
        time.sleep(0.35)
        with progress(steps=False) as bar:
            task = bar.add_task("reading \x1b[31mimages", total=None, note="")
            time.sleep(0.25)
            for epoch in (1, 2):
                for step in (1, 2, 3):
                    bar.update(task, description=f"coop {epoch}/2", total=6, completed=3 * epoch - 3 + step, note="ok")
        with progress(steps=True) as bar:
            task = bar.add_task("measuring", total=5, note="")
            bar.advance(task, 2)
            time.sleep(0.25)
    lines = told().splitlines()
    assert 1 <= sum(line.startswith("daptune: fit is starting (") for line in lines) <= 4
    assert any(line.startswith("daptune: reading  [31mimages (") for line in lines), "no control characters"
    assert [line for line in lines if "coop" in line][:2] == ["daptune: coop 1/2: ok", "daptune: coop 2/2: ok"]
    assert any(line.startswith("daptune: measuring 2 of 5 (") for line in lines)
    assert all(line.isprintable() for line in lines)
    time.sleep(0.2)
    assert told() == "", "it ends with the command"


def test_silent_where_another_process_speaks(told: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> None:
    with alive("fit"), silent():
        time.sleep(0.3)
    monkeypatch.setenv("RANK", "1")
    with alive("fit"):
        time.sleep(0.3)
    assert told() == ""
    note("a remark")
    assert told() == "a remark\n"


def test_fit_has_a_line_for_every_epoch(daptune: Command, pictures: Path, made_up_backbone: str) -> None:
    words = ("--method", "coop", "--backbone", made_up_backbone, "--shots", "2", "--epochs", "3")
    done = daptune("fit", pictures, *words)
    assert done.code == 0, done.err
    assert [f"daptune: coop {epoch}/3: " in done.err for epoch in (1, 2, 3)] == [True] * 3
    Path("adapter.run/.lock").write_text("1 elsewhere\n")  # of a process that was killed at its last step
    again = daptune("fit", pictures, *words, "--resume")
    assert again.code == 0 and "is finished" in again.out and "Nothing was trained" in again.out
    assert "coop" not in again.err and not Path("adapter.run/.lock").exists()
    other = daptune("fit", pictures, *words, "--seed", "2", "--resume")
    assert other.code == 2 and "it had other settings: seed is 1 there and 2 now" in other.err
