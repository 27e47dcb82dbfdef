"""The table of docs/time_to_accuracy.md: what `studies.recipe` found, cell by cell and over all cells."""

from collections import defaultdict
from typing import Any

import numpy as np

from studies.curve import first_at, stays_at
from studies.defaults import TASKS

Cell = tuple[int, str, str]  # shots, method, task
HEADS = (
    "shots", "method", "task", "recipe's rate", "its accuracy", "its steps (first there)", "default is there",
    "stays from", "ends", "steps, times fewer", "seconds, times fewer",
)  # fmt: skip
COUNTS = ("variant", "shots", "cells", "is there", "in a fifth", "ends there", "whole run a fifth", "ends, mean")


def curves(rows: list[dict[str, Any]]) -> dict[Cell, dict[str, dict[str, Any]]]:
    """cell -> label -> steps, accuracy at each (mean over seeds, per cent), seconds of the whole run."""
    grouped: dict[Cell, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        grouped[row["shots"], row["method"], row["task"]][row["label"]].append(row)
    return {
        cell: {
            label: {
                "steps": own[0]["steps"],
                "accuracy": list(100 * np.sum([row["right"] for row in own], 0) / sum(row["images"] for row in own)),
                "seconds": float(np.mean([row["seconds"] for row in own])),
            }
            for label, own in labels.items()
        }
        for cell, labels in sorted(grouped.items(), key=lambda item: (*item[0][:2], TASKS.index(item[0][2])))
    }


def best_recipe(own: dict[str, dict[str, Any]]) -> str:
    """The label of the rate that ends best; of equal ones the first."""
    return max((label for label in own if label.startswith("recipe ")), key=lambda label: own[label]["accuracy"][-1])


def compared(own: dict[str, dict[str, Any]], label: str = "default") -> dict[str, Any]:
    """A variant beside the recipe's best rate: `reached` and `stays` are steps or None, `ends` points at the end."""
    reference, ours = own[best_recipe(own)], own[label]
    level = reference["accuracy"][-1]
    first, stays = first_at(ours["accuracy"], level), stays_at(ours["accuracy"], level)
    reached = None if first is None else ours["steps"][first]
    share = 1.0 if reached is None else reached / ours["steps"][-1]  # every step costs the same
    return {
        "level": level,
        "whole": reference["steps"][-1],
        "own": reference["steps"][first_at(reference["accuracy"], level) or -1],
        "steps": ours["steps"][-1],
        "reached": reached,
        "stays": None if stays is None else ours["steps"][stays],
        "ends": ours["accuracy"][-1] - level,
        "best": max(ours["accuracy"][1:]) - level,
        "seconds": (reference["seconds"], share * ours["seconds"]),
    }


def report(rows: list[dict[str, Any]]) -> str:
    """Markdown: the defaults beside the recipe, cell by cell, then every variant over all cells."""
    found = curves(rows)
    lines = ["| " + " | ".join(HEADS) + " |", "|---" * len(HEADS) + "|"]
    for (shots, method, task), own in found.items():
        c = compared(own)
        rate = best_recipe(own).removeprefix("recipe ")
        cells = [shots, f"`{method}`", task, rate, f"{c['level']:.1f}", f"{c['whole']} ({c['own']})"]
        if c["reached"] is None:
            cells += [f"not reached, {c['best']:+.1f} at best", "never", f"{c['ends']:+.1f}", "-", "-"]
        else:
            cells += [f"step {c['reached']} of {c['steps']}", "never" if c["stays"] is None else c["stays"]]
            cells += [f"{c['ends']:+.1f}", f"{c['whole'] / c['reached']:.1f}"]
            cells.append(f"{c['seconds'][0] / c['seconds'][1]:.1f}")
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    lines += ["", "| " + " | ".join(COUNTS) + " |", "|---" * len(COUNTS) + "|"]
    labels = dict.fromkeys(label for own in found.values() for label in own if not label.startswith("recipe "))
    for label in labels:
        for shots in sorted({shots for shots, _, _ in found}):
            every = [compared(own, label) for cell, own in found.items() if cell[0] == shots and label in own]
            if every:
                there = [c for c in every if c["reached"] is not None]
                ends = [c for c in every if c["ends"] >= 0]
                cells = [label, shots, len(every), len(there), sum(5 * c["reached"] <= c["whole"] for c in there)]
                cells += [len(ends), sum(5 * c["steps"] <= c["whole"] for c in ends)]
                cells.append(f"{np.mean([c['ends'] for c in every]):+.1f}")
                lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)
