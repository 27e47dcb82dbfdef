"""Gains over zero-shot on validation images, as tables: by configuration, with a task left out, by single setting."""

from collections import defaultdict
from typing import Any

import numpy as np

from daptune.bench.results import Result

Cells = dict[tuple[str, int], float]  # (task, shots) -> gain over zero-shot, mean over seeds


def settings(row: Result) -> dict[str, Any]:
    """What a run was given; the first context is one setting, since words bring their number of tokens along."""
    given = {**row.train, **row.options}
    if "text_tokens" in given or "context_init" in given:
        words, tokens = given.pop("context_init", ""), given.pop("text_tokens", 16)
        given["context"] = f'"{words}"' if words else f"{tokens} of noise"
    return given


def gains(rows: list[Result]) -> dict[str, dict[str, Cells]]:
    """label -> configuration (as text) -> its cells; configurations that were not run everywhere are left out."""
    zero = {(r.dataset, r.shots): r.accuracy["val"] for r in rows if r.method == "zero_shot"}
    found: dict[str, dict[str, dict[tuple[str, int], list[float]]]] = defaultdict(lambda: defaultdict(dict))
    for r in rows:
        if r.method != "zero_shot":
            where = (r.dataset, r.shots)
            name = ", ".join(f"{k} {v}" for k, v in settings(r).items())
            found[r.label][name].setdefault(where, []).append(r.accuracy["val"] - zero[where])
    return {
        label: {
            name: {w: 100 * float(np.mean(v)) for w, v in cells.items()}
            for name, cells in configs.items()
            if cells.keys() == zero.keys()
        }
        for label, configs in found.items()
    }


def mean(cells: Cells, task: str = "", shots: int = 0, without: str = "") -> float:
    """Mean gain over the cells of a task, of a number of shots, or of all tasks but one."""
    kept = [g for (t, s), g in cells.items() if task in ("", t) and shots in (0, s) and t != without]
    return float(np.mean(kept))


def report(rows: list[Result]) -> str:
    """Markdown: configurations by mean gain, what leaving a task out would have chosen, and single settings."""
    lines = []
    for label, configs in gains(rows).items():
        some = next(iter(configs.values()))
        tasks, counts = list(dict.fromkeys(t for t, _ in some)), sorted({s for _, s in some})
        heads = ["configuration", "mean", *tasks, *(f"{s} shots" for s in counts)]
        lines += [f"\n**{label}**\n", "| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
        for name in sorted(configs, key=lambda n: -mean(configs[n])):
            cells = configs[name]
            figures = [mean(cells), *(mean(cells, t) for t in tasks), *(mean(cells, shots=s) for s in counts)]
            lines.append(f"| {name} | " + " | ".join(f"{g:+.1f}" for g in figures) + " |")
        told = []
        for task in tasks:
            other = max(configs, key=lambda n: mean(configs[n], without=task))
            best = max(mean(cells, task) for cells in configs.values())
            told.append(f"{task} {mean(configs[other], task):+.1f} (best of all on it {best:+.1f})")
        lines.append("\nChosen on the other tasks: " + ", ".join(told) + ".")
    return "\n".join(lines)


def effects(rows: list[Result], labels: tuple[str, ...], base: dict[str, Any]) -> str:
    """Markdown: what a setting adds beside that of `base`, by least squares over all runs of `labels`, with its error.

    Runs of a task and number of shots share a constant, so that only settings are compared.
    """
    runs = [r for r in rows if r.label in labels]
    own = [{**base, **settings(r)} for r in runs]
    named = sorted({(k, v) for s in own for k, v in s.items() if k in base and v != base[k]}, key=str)
    cells = sorted({(r.dataset, r.shots) for r in runs})
    columns = [[float(s[k] == v) for s in own] for k, v in named]
    columns += [[float((r.dataset, r.shots) == cell) for r in runs] for cell in cells]
    design, gain = np.array(columns).T, 100 * np.array([r.accuracy["val"] for r in runs])
    found, _, rank, _ = np.linalg.lstsq(design, gain, rcond=None)
    noise = ((gain - design @ found) ** 2).sum() / (len(runs) - rank)
    errors = np.sqrt(noise * np.diag(np.linalg.pinv(design.T @ design)))
    lines = ["| setting | beside | points |", "|---|---|---|"]
    for (key, value), points, error in zip(named, found, errors, strict=False):
        lines.append(f"| {key} {value} | {base[key]} | {points:+.1f} ± {error:.1f} |")
    return "\n".join(lines)
