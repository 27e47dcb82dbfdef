"""What a report says to do next, for measurements written out; the command of a fit, from its record."""

import shlex
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from daptune.measured import Measured
from daptune.report.fit_command import recorded_command
from daptune.report.steps import Places, next_steps, share_of

NAMES = ("cat", "dog", "fox")
HERE = Places("my adapter", "pictures/")


def measured(rows: list[tuple[int, int]]) -> Measured:
    """From pairs of true and predicted class."""
    labels, said = np.array(rows).T
    return Measured(np.eye(3)[said], labels.astype(np.int64))


def rows(*right_of: tuple[int, int]) -> list[tuple[int, int]]:
    """For each class how many of how many are right; wrong ones are called the next class."""
    return [(c, c if n < right else (c + 1) % 3) for c, (right, count) in enumerate(right_of) for n in range(count)]


def texts(**given: Any) -> list[str]:
    return [step.line for step in next_steps(NAMES, given.pop("places", HERE), **given)]


def test_a_class_that_is_surely_below_the_others_is_named() -> None:
    """Of 40 dogs 6 are right, whose interval ends at 29 %; of 4 foxes 2, whose interval holds the mean of 65 %."""
    found = {"zero_shot": measured(rows((5, 40), (2, 40), (0, 4))), "dapt": measured(rows((38, 40), (6, 40), (2, 4)))}
    (line,) = texts(found=found)
    assert line.startswith("Add training images of dog, which") and "fox" not in line
    assert line.endswith("daptune suggest 'my adapter' UNLABELLED -n 20 --out next/")


def test_zero_shot_that_is_better_comes_before_more_images() -> None:
    found = {"zero_shot": measured(rows((9, 10), (9, 10), (9, 10))), "dapt": measured(rows((3, 10), (3, 10), (3, 10)))}
    first, second = texts(found=found, shots=4)
    assert "let cross-validation choose" in first and "daptune fit pictures/ --method auto --out 'my adapter'" in first
    assert "learned from 4 of each class" in second


def test_flagged_labels_and_a_backbone_that_does_badly() -> None:
    check: Any = SimpleNamespace(flagged=np.array([True, False, True]), expected=0.4)
    lines = texts(check=check, backbone="the backbone tiny does badly on these images.")
    assert lines == [
        "The backbone tiny does badly on these images.",
        "Look at the 2 flagged training labels below, correct those that are wrong, and fit again.",
    ]
    expected: Any = SimpleNamespace(flagged=np.array([True]), expected=1.2)
    assert "flagged" not in " ".join(texts(check=expected))


def test_without_a_finding_there_is_still_a_step_and_without_images_they_are_asked_for() -> None:
    found = {"zero_shot": measured(rows((5, 9), (5, 9), (5, 9))), "dapt": measured(rows((9, 9), (9, 9), (9, 9)))}
    (line,) = texts(found=found, shots=4)
    assert line.endswith("daptune predict 'my adapter' PICTURES")
    (line,) = texts(places=Places("a"))
    assert line.endswith("add --images FOLDER. daptune report a --images FOLDER")


def test_a_share_says_what_it_stands_on() -> None:
    """Wilson's interval of 0 of 3 by hand: z^2 / (3 + z^2) = 3.841 / 6.841 = 56 %."""
    assert share_of(0, 3) == "0 of 3, 0 %, 95 % interval 0 to 56 %"


def test_the_command_of_a_record_has_what_is_not_the_default() -> None:
    record: Any = SimpleNamespace(
        method="dapt", backbone={"name": "tiny"}, shots=4, seed=7, ensemble={}, multi_label=False,
        method_config={"inter_weight": 3.5, "intra_weight": 0.1},
        train_config={"optimizer": "sgd", "epochs": 5, "seed": 7, "momentum": 0.9, "views": None},
    )  # fmt: skip
    words = recorded_command(record, "pictures/", "out")
    assert words[:9] == ["daptune", "fit", "pictures/", "--method", "dapt", "--backbone", "tiny", "--shots", "4"]
    assert words[9:] == [
        "--seed", "7", "--set", "inter_weight=3.5", "--train", "epochs=5", "--train", "optimizer=sgd",
        "--ensemble", "none", "--out", "out",
    ]  # fmt: skip
    record.shots, record.ensemble = None, {"a": [1, 1, 1]}
    assert "--shots" not in recorded_command(record) and "--ensemble" not in recorded_command(record)


@pytest.mark.parametrize("verb", ["report", "fit", "suggest", "predict"])
def test_the_commands_are_understood(verb: str) -> None:
    from daptune.cli.app import app

    check: Any = SimpleNamespace(flagged=np.array([True]), expected=0.1)
    bad = {"zero_shot": measured(rows((9, 10), (9, 10), (9, 10))), "dapt": measured(rows((3, 10), (3, 10), (3, 10)))}
    steps = [*next_steps(NAMES, Places("a"), check=check), *next_steps(NAMES, HERE, found=bad, shots=4)]
    steps += next_steps(NAMES, HERE)
    own = [step.command for step in steps if step.command.startswith(f"daptune {verb} ")]
    assert own
    for command in own:
        app.parse_args(shlex.split(command)[1:], print_error=False, exit_on_error=False)
