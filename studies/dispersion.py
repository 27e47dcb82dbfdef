"""The paper's question, asked on the demo: do the dispersion losses help, beside what they are added to?

    python -m studies.dispersion --tasks TASKS --search studies/results/defaults.jsonl \\
        --out studies/results/dispersion.jsonl

Every method takes the configuration that scored best on the demo's validation images among its equal number in the
search of `studies.defaults`. Then test images and unseen styles are measured: five seeds draw images and prompts,
1 to 16 shots. Since configurations differ in more than the losses, "same" rows add the losses to the baseline's own. A
difference is that of what both score on an image, mean over seeds, with the 95 % interval of a paired
bootstrap over images; how far seeds differ stands beside each accuracy.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from daptune.bench.plan import Experiment, MethodRow
from daptune.bench.results import Result
from daptune.metrics import paired_bootstrap
from studies.defaults import METHODS
from studies.gains import settings
from studies.runs import arguments, mean_and_deviation, part, published, run_study

TASK, SHOTS, SEEDS = "demo", (1, 2, 4, 8, 16), (1, 2, 3, 4, 5)
DOMAINS = ("fluent-emoji", "fluent-emoji-high-contrast", "fxemoji")
SAME = {  # the baseline's own configuration with the losses added, at the weights that did best over the whole search
    "same +inter": {"inter_weight": 0.1, "intra_weight": 0.0},
    "same +intra": {"inter_weight": 0.0, "intra_weight": 10.0},
    "same +both": {"inter_weight": 0.1, "intra_weight": 10.0},
}
ROWS = ("zero_shot", "linear_probe", *METHODS, *SAME)
PAIRS = (
    *((label, "coop_vpt") for label in SAME),
    ("+inter", "coop_vpt"),
    ("+intra", "coop_vpt"),
    ("dapt", "coop_vpt"),
    ("dapt", "coop"),
    ("dapt", "vpt"),
)


def chosen(search: list[Result]) -> dict[str, Result]:
    """label -> the run of the search whose options and training scored best on the demo's validation images."""
    best: dict[str, tuple[float, Result]] = {}
    runs = [row for row in search if row.dataset == TASK and row.method != "zero_shot"]
    for row in runs:
        same = [r for r in runs if (r.label, r.options, r.train) == (row.label, row.options, row.train)]
        score = float(np.mean([r.accuracy["val"] for r in same]))
        if row.label not in best or score > best[row.label][0]:
            best[row.label] = score, row
    return {label: row for label, (_, row) in best.items()}


def plan(search: list[Result], shots: list[int]) -> list[Experiment]:
    """All runs, zero-shot and the linear probe among them."""
    own = {label: (METHODS[label][0], row.options, row.train) for label, row in chosen(search).items()}
    _, options, train = own["coop_vpt"]
    own |= {label: ("dapt", options | weights, train) for label, weights in SAME.items()}
    rows = [MethodRow(method, label, *given) for label in ROWS for method, *given in [own.get(label, (label, {}, {}))]]
    return [part([TASK], rows, shots, SEEDS, test=True, styles=DOMAINS)]


def hits(rows: list[Result], label: str, shots: int, splits: tuple[str, ...]) -> NDArray[np.float64]:
    """(seeds, images) 1 where right, of all `splits` side by side."""
    own = sorted((r for r in rows if (r.label, r.shots) == (label, shots)), key=lambda r: r.seed)
    return np.array([[float(c) for split in splits for c in row.correct[split]] for row in own])


def report(rows: list[Result], search: list[Result], shots: list[int]) -> str:
    """Markdown: what was chosen, accuracy by shots on test images and on unseen styles, and the differences."""
    lines = ["| method | chosen on validation images |", "|---|---|"]
    for label, row in chosen(search).items():
        lines.append(f"| {label} | {', '.join(f'{k} {v}' for k, v in settings(row).items())} |")
    for title, splits in (("Test images of the source style", ("test",)), ("Unseen styles, together", DOMAINS)):
        lines += ["", f"**{title}**, accuracy in per cent, mean and deviation over {len(SEEDS)} seeds", ""]
        lines += ["| method | " + " | ".join(f"{s} shots" for s in shots) + " |", "|---" * (len(shots) + 1) + "|"]
        for label in ROWS:
            cells = [mean_and_deviation(list(hits(rows, label, s, splits).mean(1))) for s in shots]
            lines.append(f"| {label} | " + " | ".join(cells) + " |")
        lines += ["", "| difference | " + " | ".join(f"{s} shots" for s in shots) + " |"]
        lines += ["|---" * (len(shots) + 1) + "|"]
        for first, second in PAIRS:
            shares = [[hits(rows, label, s, splits).mean(0) for label in (second, first)] for s in shots]
            spans = [paired_bootstrap([pair]) for pair in shares]
            cells = [f"{100 * d.difference:+.1f} ({100 * d.low:+.1f} to {100 * d.high:+.1f})" for d in spans]
            lines.append(f"| {first} - {second} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--search", type=Path, required=True, help="results of `studies.defaults search`")
    parser.add_argument("--shots", nargs="+", type=int, default=list(SHOTS))
    options = parser.parse_args()
    search = published(options.search)
    print(report(run_study("dispersion", plan(search, options.shots), options), search, options.shots))


if __name__ == "__main__":
    main()
