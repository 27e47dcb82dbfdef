"""What the numbers say, in sentences made from them: also where the method loses, and where nothing is clear."""

from collections.abc import Mapping

from daptune.bench.summary import counted, sets_text
from daptune.metrics import PairedDifference
from daptune.report.bench_tables import plain_label, targets_of
from daptune.report.board import MEANING, Board, harmonic, verdict
from daptune.report.table import signed


def bench_says(boards: Mapping[str, Board], focus: str) -> list[str]:
    """The first sentence is the result; one or two on each kind of experiment follow."""
    tell = {"fewshot": _fewshot, "ablation": _ablation, "base2new": _base_to_new}
    lines: list[str] = []
    for kind, board in boards.items():
        if focus in board.labels:
            lines += tell[kind](board) if kind in tell else _targets(board, kind)
    seeds = {result.seed for board in boards.values() for result in board.results}
    where = sets_text(next(iter(boards.values())).datasets)
    lines.append(
        f"All of this is from {counted(len(seeds), 'seed')} on {where}. Intervals tell how a result would move "
        "with other test images, not with other training images or another backbone."
    )
    return lines


def _fewshot(board: Board) -> list[str]:
    shots = board.top_shots
    ours = board.mean_over(board.datasets, board.focus, shots)
    if ours is None:
        return []
    over = (" of " if len(board.datasets) == 1 else ", ") + sets_text(board.datasets, "mean of ")
    where = f"{counted(shots, 'image')} a class"
    lines = [f"With {where}, {board.focus} is right on {_percent(ours.mean)} of test images{over}."]
    scored = {label: found.mean for label in board.others if (found := board.mean_over(board.datasets, label, shots))}
    if not scored:
        return lines
    best = max(scored, key=lambda label: scored[label])
    gap = ours.mean - scored[best]
    side = "less" if gap < 0 else "more"
    size = f"{abs(100 * gap):.1f} points {side} than {best}, the best of the others" if gap else f"as much as {best}"
    lines[0] += f" That is {size}{_meaning(board.difference(board.focus, best, board.datasets, shots))}."
    if "zero_shot" in scored and best != "zero_shot":
        gain = ours.mean - scored["zero_shot"]
        plain = _percent(scored["zero_shot"])
        lines.append(f"Against CLIP as it is (zero_shot, {plain}) that is {signed(gain)} points.")
    if len(board.shots) > 1:
        each = {s: d for s in board.shots if (d := board.difference(board.focus, best, board.datasets, s))}
        groups = {word: [s for s, d in each.items() if verdict(d) == word] for word in _WORDS}
        words = [f"{_WORDS[word]} at {_list(group)}" for word, group in groups.items() if group]
        if len(each) > 1:
            lines.append(f"By images a class, against {best}: {'; '.join(words)}.")
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
            f"On {what} that it never learned from ({len(targets)}, learned on {source}) it reaches "
            f"{_percent(means[board.focus])} on average, {signed(means[board.focus] - means[best])} points beside "
            f"{best}, the best of the others{tail}."
        )
    return lines


def _ablation(board: Board) -> list[str]:
    first, words = plain_label(board), []
    for label in board.labels:
        if label != first and (d := board.difference(label, first, board.datasets, board.top_shots)) is not None:
            words.append(f"{label} changes it by {signed(d.difference)} ({_interval(d)})")
    return [f"Beside {first} without dispersion losses, {'; '.join(words)} points."] if words else []


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
        f"place {place} of {len(ranked)}"
    )
    if place > 1:
        line += f"; {ranked[0]} has {_percent(found[ranked[0]][0])}"
    if "zero_shot" in found and board.focus != "zero_shot":
        gain = found[board.focus][1] - found["zero_shot"][1]
        line += f". On the new classes alone it is {signed(gain)} points beside zero_shot"
    return [line + "."]


_WORDS = {"ahead": "ahead", "level": "not told apart", "behind": "behind"}


def _interval(found: PairedDifference) -> str:
    return f"{signed(found.low)} to {signed(found.high)}"


def _meaning(found: PairedDifference | None) -> str:
    return f" (95 % interval {_interval(found)}, {MEANING[verdict(found)]})" if found is not None else ""


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _list(numbers: list[int]) -> str:
    return " and ".join(", ".join(map(str, part)) for part in (numbers[:-1], numbers[-1:]) if part)
