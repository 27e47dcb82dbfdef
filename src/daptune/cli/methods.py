"""`daptune methods`: what there is to learn with."""

import re
import sys
from collections.abc import Iterable
from typing import Any

from daptune.cli.console import emit_json, print_table, say
from daptune.clip.backbone import load_backbone
from daptune.methods import METHODS, Method
from daptune.names import readable

EXAMPLE = ("one", "two")
"""Counts are given for two classes; a count that grows with the classes is said so."""


def run(backbone_name: str, *, as_json: bool) -> int:
    """Do it; raises DaptuneError for an unknown backbone."""
    backbone = load_backbone(backbone_name)
    rows: list[dict[str, Any]] = []
    for name, method_class in METHODS.items():
        small = method_class(backbone, EXAMPLE)
        large = method_class(backbone, (*EXAMPLE, "three"))
        growth = large.parameter_count - small.parameter_count
        rows.append(
            {
                "name": name,
                "title": method_class.title,
                "year": method_class.year,
                "summary": summary(method_class),
                "learns": learns(small.state_dict()),
                "parameters": small.parameter_count - 2 * growth,
                "parameters_per_class": growth,
                "grows_with_images": bool(small.state_dict()) and not small.parameter_count,
                "steps": small.trainable,
                "uses_validation": method_class.uses_validation,
                "new_classes": small.takes_new_classes(small.config),
            }
        )
    if as_json:
        emit_json({"backbone": backbone.name, "methods": rows})
        return 0
    cells = [
        (
            row["name"],
            row["year"],
            row["summary"],
            needs(row),
            "as the images" if row["grows_with_images"] else count_text(row["parameters"], row["parameters_per_class"]),
            "yes" if row["new_classes"] else "no",
        )
        for row in rows
    ]
    columns = ("name", "year", "what it learns", "needs", "parameters", "new classes")
    print_table(f"methods, counted for {backbone.name}", columns, cells, left=4)
    say("no steps: every image is encoded once or a few times, and that is all.")
    say("validation images: what they choose is chosen without them where there are none; never on test images.")
    say("new classes: what was learned serves other class names too (daptune eval --new-classes).")
    return 0


def summary(method_class: type[Method]) -> str:
    """The first clause of what the first line of its file says behind the name; the title where it says nothing."""
    line = (sys.modules[method_class.__module__].__doc__ or "").partition("\n")[0]
    return re.split(r";|,(?! and )|\.$", line.partition(": ")[2])[0] or method_class.title


def needs(row: dict[str, Any]) -> str:
    """What it takes beside the images of each class, in words."""
    if row["learns"] == "nothing":
        return "no images"
    return ("steps" if row["steps"] else "no steps") + (", validation images" if row["uses_validation"] else "")


def learns(tensors: Iterable[str]) -> str:
    """The learned tensors in words; those of one module go by the module's name."""
    names = dict.fromkeys(readable(name.partition(".")[0]) for name in tensors)
    return ", ".join(names) or "nothing"


def count_text(fixed: int, per_class: int) -> str:
    """`20,480`, or `513 a class`."""
    parts = [f"{fixed:,}"] if fixed or not per_class else []
    if per_class:
        parts.append(f"{per_class:,} a class")
    return " + ".join(parts)
