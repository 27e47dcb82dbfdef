"""The findings of bench runs in sentences, including losses and inconclusive comparisons."""

from collections.abc import Mapping

from daptune.bench.summary import counted, sets_text
from daptune.metrics import PairedDifference
from daptune.report.bench_tables import plain_label, targets_of
from daptune.report.board import MEANING, Board, harmonic, verdict
from daptune.report.table import signed


def bench_says(boards: Mapping[str, Board], focus: str) -> list[str]:
    """The main result, then one or two sentences on each kind of experiment."""
    tell = {"fewshot": _fewshot, "ablation": _ablation, "base2new": _base_to_new}
    lines: list[str] = []
    for kind, board in boards.items():
        if focus in board.labels:
            lines += tell[kind](board) if kind in tell else _targets(board, kind)
    seeds = {result.seed for board in boards.values() for result in board.results}
    where = sets_text(next(iter(boards.values())).datasets)
    lines.append(
        f"All results are from {counted(len(seeds), 'seed')} on {where}. The intervals cover the choice of test "
        "images, not that of training images or backbone."
    )
    return lines


def _fewshot(board: Board) -> list[str]:
    shots = board.top_shots
    ours = board.mean_over(board.datasets, board.focus, shots)
    if ours is None:
        return []
    over = (" of " if len(board.datasets) == 1 else ", ") + sets_text(board.datasets, "mean of ")
    where = f"{counted(shots, 'image')} per class"
    lines = [f"With {where}, {board.focus} classifies {_percent(ours.mean)} of the test images correctly{over}."]
    scored = {label: found.mean for label in board.others if (found := board.mean_over(board.datasets, label, shots))}
    if not scored:
        return lines
    best = max(scored, key=lambda label: scored[label])
    gap = ours.mean - scored[best]
    side = "less" if gap < 0 else "more"
    size = f"{abs(100 * gap):.1f} percentage points {side} than" if gap else "the same as"
    interval = _meaning(board.difference(board.focus, best, board.datasets, shots))
    lines[0] += f" That is {size} {best}, the best of the others{interval}."
    if "zero_shot" in scored and best != "zero_shot":
        gain = ours.mean - scored["zero_shot"]
        plain = _percent(scored["zero_shot"])
        lines.append(f"The difference from zero-shot CLIP ({plain}) is {signed(gain)} percentage points.")
    if len(board.shots) > 1:
        each = {s: d for s in board.shots if (d := board.difference(board.focus, best, board.datasets, s))}
        groups = {word: [s for s, d in each.items() if verdict(d) == word] for word in _WORDS}
        words = [f"{_WORDS[word]} at {_list(group)}" for word, group in groups.items() if group]
        if len(each) > 1:
            lines.append(f"Compared with {best} by images per class: {'; '.join(words)}.")
    return lines


def _targets(board: Board, kind: str) -> list[str]:
    lines = []
    for source in board.datasets:
        targets, shots = targets_of(board, source), board.top_shots
        means = {}
        for label in board.labels:
            found = [board.mean_over((source,), label, shots, target) for target in targets]
            if found and all(found):
                means[label] = sum(summary.mean for summary in found if summary) / len(found)
        if board.focus not in means or len(means) < 2:
            continue
        best = max((label for label in means if label != board.focus), key=lambda label: means[label])
        tail = _meaning(board.difference(board.focus, best, (source,), shots, targets))
        what = "domains" if kind == "domain" else "data sets"
        lines.append(
            f"On {len(targets)} other {what}, after training on {source}, {board.focus} reaches "
            f"{_percent(means[board.focus])} on average, {signed(means[board.focus] - means[best])} percentage points "
            f"compared with {best}, the best of the others{tail}."
        )
    return lines


def _ablation(board: Board) -> list[str]:
    first, words = plain_label(board), []
    for label in board.labels:
        if label != first and (d := board.difference(label, first, board.datasets, board.top_shots)) is not None:
            words.append(f"{label} {signed(d.difference)} ({_interval(d)})")
    lead = f"Change from {first}, without dispersion losses, in percentage points"
    return [f"{lead}: {'; '.join(words)}."] if words else []


def _base_to_new(board: Board) -> list[str]:
    shots, found = board.top_shots, {}
    for label in board.labels:
        base, new = (board.mean_over(board.datasets, label, shots, split) for split in ("base", "new"))
        if base is not None and new is not None:
            found[label] = (harmonic(base.mean, new.mean), new.mean)
    if board.focus not in found:
        return []
    ranked = sorted(found, key=lambda label: -found[label][0])
    place = ranked.index(board.focus) + 1
    line = (
        f"From base to new classes, {board.focus} has a harmonic mean of {_percent(found[board.focus][0])}, "
        f"rank {place} of {len(ranked)}"
    )
    if place > 1:
        line += f"; {ranked[0]} has {_percent(found[ranked[0]][0])}"
    if "zero_shot" in found and board.focus != "zero_shot":
        gain = found[board.focus][1] - found["zero_shot"][1]
        line += f". On the new classes its difference from zero_shot is {signed(gain)} percentage points"
    return [line + "."]


_WORDS = {"ahead": "better", "level": "inconclusive", "behind": "worse"}


def _interval(found: PairedDifference) -> str:
    return f"{signed(found.low)} to {signed(found.high)}"


def _meaning(found: PairedDifference | None) -> str:
    return f" (the 95 % interval {_interval(found)} {MEANING[verdict(found)]})" if found is not None else ""


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _list(numbers: list[int]) -> str:
    return " and ".join(", ".join(map(str, part)) for part in (numbers[:-1], numbers[-1:]) if part)
