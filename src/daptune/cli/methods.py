"""`daptune methods`: the methods with what they learn and need."""

import re
import sys
from typing import TYPE_CHECKING, Any

from daptune.cli.app import command
from daptune.cli.console import emit_json, print_table, say
from daptune.cli.options import Json
from daptune.names import readable

if TYPE_CHECKING:
    from daptune.methods import Method

EXAMPLE = ("one", "two")
"""Parameters are counted for two classes, then for three: the difference is the count per class."""


@command
def methods(*, backbone: str = "tiny", json: Json = False) -> int:
    """List the methods with what they learn, and for a backbone whether they run on it and their parameter counts.

    Parameters
    ----------
    backbone
        The frozen CLIP to count for.
    """
    from daptune.clip.backbone import load_backbone
    from daptune.methods import METHODS

    frozen = load_backbone(backbone)
    rows: list[dict[str, Any]] = []
    for name, method_class in METHODS.items():
        about = {
            "name": name,
            "title": method_class.title,
            "year": method_class.year,
            "summary": summary(method_class),
            "lacking": method_class.lacking(frozen.clip, method_class.config_class()),
            "uses_validation": method_class.uses_validation,
        }
        if about["lacking"]:
            rows.append(about)
            continue
        small = method_class(frozen, EXAMPLE)
        growth = method_class(frozen, (*EXAMPLE, "three")).parameter_count - small.parameter_count
        tensors = dict.fromkeys(readable(tensor.partition(".")[0]) for tensor in small.state_dict())
        rows.append(
            about
            | {
                "learns": ", ".join(tensors) or "nothing",
                "parameters": small.parameter_count - 2 * growth,
                "parameters_per_class": growth,
                "grows_with_images": bool(tensors) and not small.parameter_count,
                "steps": small.trainable,
                "new_classes": small.takes_new_classes(small.config),
            }
        )
    if json:
        emit_json({"backbone": frozen.name, "methods": rows})
        return 0
    cells = [(row["name"], row["year"], row["summary"], *_answers(row)) for row in rows]
    columns = ("name", "year", "what it learns", "needs", "parameters", "new classes")
    print_table(f"methods, counted for {frozen.name}", columns, cells, left=4)
    say("no steps: encodes each image once or a few times, no training.")
    say("validation images: used for selection if present; test images never are.")
    say("new classes: the learned parameters accept other class names (daptune eval --new-classes).")
    return 0


def summary(method_class: "type[Method]") -> str:
    """The first clause after the name in the first line of the method's module; its title if there is none."""
    line = (sys.modules[method_class.__module__].__doc__ or "").partition("\n")[0]
    return re.split(r";|,(?! and )|\.$", line.partition(": ")[2])[0] or method_class.title


def _answers(row: dict[str, Any]) -> tuple[str, str, str]:
    """The last three columns of a row."""
    if row["lacking"]:
        return f"{row['lacking'][0]}: does not run", "", ""
    return _needs(row), _count(row), "yes" if row["new_classes"] else "no"


def _needs(row: dict[str, Any]) -> str:
    """What it takes beside the images of each class, in words."""
    if row["learns"] == "nothing":
        return "no images"
    return ("steps" if row["steps"] else "no steps") + (", validation images" if row["uses_validation"] else "")


def _count(row: dict[str, Any]) -> str:
    """`20,480`, or `513 per class`."""
    fixed, per_class = row["parameters"], row["parameters_per_class"]
    if row["grows_with_images"]:
        return "as the images"
    parts = [f"{fixed:,}"] if fixed or not per_class else []
    if per_class:
        parts.append(f"{per_class:,} per class")
    return " + ".join(parts)
