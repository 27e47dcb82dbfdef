"""`daptune methods`."""

import re
import sys

import pytest

from daptune.cli import console
from daptune.cli.methods import summary
from daptune.methods import METHODS

from .conftest import Command


def test_methods(daptune: Command, made_up_backbone: str) -> None:
    rows = {row["name"]: row for row in daptune("methods", "--backbone", made_up_backbone, "--json").json["methods"]}
    assert set(rows) >= {"zero_shot", "linear_probe", "coop", "vpt", "coop_vpt", "dapt"}
    assert rows["dapt"]["parameters"] == 16 * 64 + 16 * 64 and rows["dapt"]["parameters_per_class"] == 0
    assert rows["linear_probe"]["parameters_per_class"] == 33 and not rows["linear_probe"]["new_classes"]
    assert "Distribution-Aware" in rows["dapt"]["title"]
    assert {name for name, row in rows.items() if row["uses_validation"]} >= {"linear_probe", "tip_adapter", "lp_pp"}


def test_methods_are_listed_with_what_they_learn_and_need(
    daptune: Command, made_up_backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "_PLAIN_WIDTH", 300)
    lines = daptune("methods", "--backbone", made_up_backbone).out.splitlines()
    cells = {row[0]: row[1:] for line in lines if len(row := re.split(r"  +", line.strip())) == 6}
    assert set(cells) == {"name", *METHODS}
    assert cells["name"] == ["year", "what it learns", "needs", "parameters", "new classes"]
    assert cells["coop"] == ["2022", "learn the words around the class name", "steps", "1,024", "yes"]
    assert cells["zero_shot"][2:] == ["no images", "0", "yes"]
    assert cells["linear_probe"][2:] == ["no steps, validation images", "33 per class", "no"]
    assert cells["tip_adapter_f"][2:] == ["steps, validation images", "as the images", "no"]
    assert cells["prototype"][2:] == ["no steps", "32 per class", "no"]


def test_a_method_without_a_line_of_its_own_is_listed_by_its_title(monkeypatch: pytest.MonkeyPatch) -> None:
    for text, expected in {
        "X: learns a, and b; the rest, c.\n\nMore: d.": "learns a, and b",
        "X: learns a.": "learns a",
        "Learns a.": "CoOp + VPT",
        None: "CoOp + VPT",
    }.items():
        monkeypatch.setattr(sys.modules[METHODS["coop_vpt"].__module__], "__doc__", text)
        assert summary(METHODS["coop_vpt"]) == expected
