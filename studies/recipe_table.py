"""The table of docs/time_to_accuracy.md: what `studies.recipe` found, cell by cell and over all cells."""

from collections import defaultdict
from typing import Any

import numpy as np

from daptune.bench.results import Result
from studies.curve import first_at, stays_at
from studies.defaults import TASKS

Cell = tuple[int, str, str]  # shots, method, task
HEADS = (
    "shots", "method", "task", "recipe's rate", "its accuracy", "its steps (first there)", "default is there",
    "stays from", "ends", "times fewer steps",
)  # fmt: skip
COUNTS = (
    "variant",
    "shots",
    "cells",
    "is there",
    "in a fifth",
    "to stay",
    "ends there",
    "whole run a fifth",
    "ends, mean",
)


def along(row: Result) -> dict[str, list[float]]:
    """The curve of a run: "steps", "right" and "images" (validation images), "seconds" where it was timed."""
    return row.curve or {}


def curves(rows: list[Result]) -> dict[Cell, dict[str, dict[str, Any]]]:
    """cell -> label -> steps, accuracy at each (mean over seeds, per cent), seconds of the whole run."""
    grouped: dict[Cell, dict[str, list[Result]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        grouped[row.shots, row.method, row.dataset][row.label].append(row)
    return {
        cell: {
            label: {
                "steps": along(own[0])["steps"],
                "accuracy": list(
                    100 * np.sum([along(row)["right"] for row in own], 0) / sum(along(row)["images"][0] for row in own)
                ),
            }
            for label, own in labels.items()
        }
        for cell, labels in sorted(grouped.items(), key=lambda item: (*item[0][:2], TASKS.index(item[0][2])))
    }


def is_recipe(label: str) -> bool:
    """Whether it is the recipe as it is, at some rate."""
    return label.startswith("recipe ") and label[7].isdigit()


def best_recipe(own: dict[str, dict[str, Any]]) -> str:
    """The label of the rate that ends best; of equal ones the first."""
    return max(filter(is_recipe, own), key=lambda label: own[label]["accuracy"][-1])


def compared(own: dict[str, dict[str, Any]], label: str = "default") -> dict[str, Any]:
    """A variant beside the recipe's best rate: `reached` and `stays` are steps or None, `ends` points at the end."""
    reference, ours = own[best_recipe(own)], own[label]
    level = reference["accuracy"][-1]
    first, stays = first_at(ours["accuracy"], level), stays_at(ours["accuracy"], level)
    return {
        "level": level,
        "whole": reference["steps"][-1],
        "own": reference["steps"][first_at(reference["accuracy"], level) or -1],
        "steps": ours["steps"][-1],
        "reached": None if first is None else ours["steps"][first],
        "stays": None if stays is None else ours["steps"][stays],
        "ends": ours["accuracy"][-1] - level,
        "best": max(ours["accuracy"][1:]) - level,
    }


def in_time(c: dict[str, Any]) -> bool:
    """Whether a variant is there to stay in a fifth of the recipe's steps."""
    return c["stays"] is not None and 5 * c["stays"] <= c["whole"]


def left_out(found: dict[Cell, dict[str, dict[str, Any]]], shots: int) -> str:
    """What the other tasks choose for each: there to stay in a fifth most often, then furthest ahead at the end."""
    cells = {cell: own for cell, own in found.items() if cell[0] == shots}
    labels = [label for label in next(iter(cells.values())) if not label.startswith("recipe")]
    labels = [label for label in labels if all(label in own for own in cells.values())]

    def score(label: str, chosen: list[Cell]) -> tuple[int, float]:
        every = [compared(cells[cell], label) for cell in chosen]
        return sum(map(in_time, every)), float(np.mean([c["ends"] for c in every]))

    told = []
    for task in dict.fromkeys(task for _, _, task in cells):
        own, others = ([cell for cell in cells if (cell[2] == task) == same] for same in (True, False))
        best = max(labels, key=lambda label, others=others: score(label, others))  # type: ignore[misc]
        count, ends = score(best, own)
        told.append(f'{task} "{best}" (in a fifth to stay {count} of {len(own)}, ends {ends:+.1f})')
    return f"Chosen on the other tasks, {shots} shots: " + ", ".join(told) + "."


def step_costs(rows: list[Result]) -> str:
    """A sentence: milliseconds of a step with the recipe and without, median over runs that were timed."""
    costs: dict[bool, list[float]] = {True: [], False: []}
    for row in rows:
        if (curve := along(row))["seconds"]:
            costs[is_recipe(row.label)].append(1000 * curve["seconds"][-1] / curve["steps"][-1])
    recipe, ours = (np.median(costs[kind] or [np.nan]) for kind in (True, False))
    return f"A step that was timed: {recipe:.0f} ms of a processor with the recipe, {ours:.0f} ms otherwise."


def report(rows: list[Result]) -> str:
    """Markdown: the defaults beside the recipe, cell by cell, then every variant over all cells."""
    found = curves(rows)
    lines = ["| " + " | ".join(HEADS) + " |", "|---" * len(HEADS) + "|"]
    for (shots, method, task), own in found.items():
        c = compared(own)
        rate = best_recipe(own).removeprefix("recipe ")
        cells = [shots, f"`{method}`", task, rate, f"{c['level']:.1f}", f"{c['whole']} ({c['own']})"]
        if c["reached"] is None:
            cells += [f"not reached, {c['best']:+.1f} at best", "never", f"{c['ends']:+.1f}", "-"]
        else:
            cells += [f"step {c['reached']} of {c['steps']}", "never" if c["stays"] is None else c["stays"]]
            cells += [f"{c['ends']:+.1f}", f"{c['whole'] / c['reached']:.1f}"]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    lines += ["", "| " + " | ".join(COUNTS) + " |", "|---" * len(COUNTS) + "|"]
    labels = dict.fromkeys(label for own in found.values() for label in own if not is_recipe(label))
    for label in labels:
        for shots in sorted({shots for shots, _, _ in found}):
            every = [compared(own, label) for cell, own in found.items() if cell[0] == shots and label in own]
            if every:
                there = [c for c in every if c["reached"] is not None]
                ends = [c for c in every if c["ends"] >= 0]
                cells = [label, shots, len(every), len(there), sum(5 * c["reached"] <= c["whole"] for c in there)]
                cells += [sum(map(in_time, every)), len(ends), sum(5 * c["steps"] <= c["whole"] for c in ends)]
                cells.append(f"{np.mean([c['ends'] for c in every]):+.1f}")
                lines.append("| " + " | ".join(map(str, cells)) + " |")
    chosen = [left_out(found, shots) for shots in sorted({shots for shots, _, _ in found})]
    return "\n".join([*lines, "", *chosen, "", step_costs(rows)])
