"""Tables of figures: methods beside each other, and classes from worst to best."""

from collections.abc import Mapping, Sequence

from daptune.cli.console import percent, print_table
from daptune.evaluate import Measured

SHOWN = 3
"""Classes named at each end of the list."""


def print_comparison(title: str, rows: Mapping[str, Measured]) -> None:
    """Accuracy and macro-F1 of several methods on the same images."""
    cells = [(name, percent(row.accuracy), percent(row.macro_f1)) for name, row in rows.items()]
    print_table(title, ("method", "accuracy", "macro-F1"), cells)


def print_extremes(class_names: Sequence[str], counts: Sequence[int], rows: Mapping[str, Measured]) -> None:
    """The classes that the last of `rows` knows worst and best, with the others' figures beside."""
    last = list(rows.values())[-1].per_class
    order = [int(place) for place in last.argsort(kind="stable") if last[place] == last[place]]  # NaN: no images
    if len(order) <= 2 * SHOWN:
        ends = {order[-1]: "best", order[0]: "worst"}
        chosen = [(place, ends.get(place, "")) for place in order]
    else:
        chosen = [(p, "worst") for p in order[:SHOWN]] + [(p, "best") for p in order[-SHOWN:]]
    cells = [
        (class_names[place], word, counts[place], *(percent(float(row.per_class[place])) for row in rows.values()))
        for place, word in chosen
    ]
    print_table("by class", ("class", "", "images", *rows), cells, left=2)


def print_classes(class_names: Sequence[str], counts: Sequence[int], measured: Measured) -> None:
    """Every class that has images, worst first."""
    order = [int(p) for p in measured.per_class.argsort(kind="stable") if counts[p]]
    cells = [(class_names[p], counts[p], percent(float(measured.per_class[p]))) for p in order]
    print_table("by class, worst first", ("class", "images", "accuracy"), cells)
