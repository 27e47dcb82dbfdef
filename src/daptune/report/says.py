"""What the numbers say, in sentences made from them: also where the method loses, and where nothing is clear."""

from collections.abc import Mapping

from daptune.metrics import PairedDifference
from daptune.report.bench_tables import targets_of
from daptune.report.board import MEANING, Board, harmonic, verdict
from daptune.report.table import signed


def bench_says(boards: Mapping[str, Board], focus: str) -> list[str]:
    """The first sentence is the result; one or two on each kind of experiment follow."""
    lines: list[str] = []
    for kind, board in boards.items():
        if focus not in board.labels:
            continue
        if kind == "fewshot":
            lines += _fewshot(board)
        elif kind == "domain" or kind == "crossdataset":
            for source in board.datasets:
                lines += _targets(board, kind, source)
        elif kind == "ablation":
            lines += _ablation(board)
        elif kind == "base2new":
            lines += _base_to_new(board)
    seeds = {result.seed for board in boards.values() for result in board.results}
    few = f"{len(seeds)} seed{'s' if len(seeds) != 1 else ''}"
    lines.append(
        f"All of this is from {few} on {_sets(next(iter(boards.values())))}. Intervals tell how a result would move "
        "with other test images, not with other training images or another backbone."
    )
    return lines


def _fewshot(board: Board) -> list[str]:
    shots = board.top_shots
    ours = board.mean_over(board.datasets, board.focus, shots)
    if ours is None:
        return []
    where = _images(shots)
    lines = [f"With {where}, {board.focus} is right on {_percent(ours.mean)} of test images{_over(board)}."]
    scored = {label: found.mean for label in board.others if (found := board.mean_over(board.datasets, label, shots))}
    if not scored:
        return lines
    best = max(scored, key=lambda label: scored[label])
    lines[0] += f" That is {_against(board, best, shots, scored[best] - ours.mean)}."
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


def _against(board: Board, best: str, shots: int, gap: float) -> str:
    """`gap` is how much better the best of the others is."""
    found = board.difference(board.focus, best, board.datasets, shots)
    side = "less" if gap > 0 else "more"
    size = f"{abs(100 * gap):.1f} points {side} than {best}, the best of the others" if gap else f"as much as {best}"
    if found is None:
        return size
    return f"{size} (95 % interval {_interval(found)}, {MEANING[verdict(found)]})"


def _targets(board: Board, kind: str, source: str) -> list[str]:
    targets, shots = targets_of(board, source), board.top_shots
    means = {}
    for label in board.labels:
        found = [board.summary(label, source, shots, target) for target in targets]
        if found and all(found):
            means[label] = sum(summary.mean for summary in found if summary) / len(found)
    if board.focus not in means or len(means) < 2:
        return []
    best = max((label for label in means if label != board.focus), key=lambda label: means[label])
    d = board.difference(board.focus, best, (source,), shots, targets)
    gap = means[board.focus] - means[best]
    tail = f" (95 % interval {_interval(d)}, {MEANING[verdict(d)]})" if d is not None else ""
    what = "domains that it never learned from" if kind == "domain" else "data sets that it never learned from"
    return [
        f"On {what} ({len(targets)}, learned on {source}) it reaches {_percent(means[board.focus])} on average, "
        f"{signed(gap)} points beside {best}, the best of the others{tail}."
    ]


def _ablation(board: Board) -> list[str]:
    shots, first = board.top_shots, "coop_vpt" if "coop_vpt" in board.labels else board.labels[0]
    words = []
    for label in board.labels:
        if label != first and (d := board.difference(label, first, board.datasets, shots)) is not None:
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
        line += f". On the new classes alone it is {signed(found[board.focus][1] - found['zero_shot'][1])} points"
        line += " beside zero_shot"
    return [line + "."]


_WORDS = {"ahead": "ahead", "level": "not told apart", "behind": "behind"}


def _interval(found: PairedDifference) -> str:
    return f"{signed(found.low)} to {signed(found.high)}"


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _images(shots: int) -> str:
    return f"{shots} image{'s' if shots != 1 else ''} a class"


def _sets(board: Board) -> str:
    return board.datasets[0] if len(board.datasets) == 1 else f"{len(board.datasets)} data sets"


def _over(board: Board) -> str:
    return f" of {board.datasets[0]}" if len(board.datasets) == 1 else f", mean of {len(board.datasets)} data sets"


def _list(numbers: list[int]) -> str:
    texts = [str(number) for number in numbers]
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"
