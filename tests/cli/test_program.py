"""The command as a program: help, its choices, faults, and `python -m daptune`."""

import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from daptune.cli.options import FitOptions, Precision
from daptune.clip.precision import PRECISIONS
from daptune.train import schedule

from .conftest import Command


def test_debug_shows_the_traceback(daptune: Command) -> None:
    with pytest.raises(ValueError, match="no folder or file"):
        daptune("fit", "nowhere", "--debug")


def test_a_fault_of_our_own_is_told_apart(daptune: Command, monkeypatch: pytest.MonkeyPatch, adapter: Path) -> None:
    def fault(*_: object, **__: object) -> None:
        raise KeyError("oops")

    monkeypatch.setattr("daptune.adapter.record.read_record", fault)
    done = daptune("show", adapter)
    assert done.code == 1 and done.err.startswith("daptune: error: internal error in daptune: KeyError")


@pytest.mark.parametrize("verb", ["", "demo", "fit", "eval", "predict", "methods", "bench", "tune", "show", "pull"])
def test_every_verb_has_help(verb: str, daptune: Command) -> None:
    done = daptune(*([verb] if verb else []), "--help")
    assert done.code == 0 and "Usage: daptune" in done.out and done.err == ""
    assert verb in {"", "pull"} or "--json" in done.out


def test_choices_of_the_command_line_are_those_of_the_library() -> None:
    assert get_args(Precision) == PRECISIONS
    chosen = get_type_hints(FitOptions)
    for name in ("optimizer", "select", "memory", "augment_on"):
        assert get_args(get_args(chosen[name])[0]) == schedule._CHOICES[name]
    training = {field.name for field in fields(schedule.TrainConfig)}
    augmentation = {"min_crop", "flip", "views", "augment_on"}
    memory = {"batch_size", "accumulate", "memory", "compile"}
    assert training & set(chosen) == {"epochs", "lr", "optimizer", "select", "seed", *memory, *augmentation}


def test_the_command_and_the_module_are_the_same_program() -> None:
    for program in ([sys.executable, "-m", "daptune"], [str(Path(sys.executable).with_name("daptune"))]):
        done = subprocess.run([*program, "fit", "nowhere"], capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("daptune: error: no folder or file at nowhere")
