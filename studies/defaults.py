"""The defaults study: which crops, rate, length, weights and first context serve data of which nothing is known.

    python -m studies.defaults crops --tasks TASKS --out studies/results/crops.jsonl
    python -m studies.defaults search --tasks TASKS --out studies/results/defaults.jsonl
    python -m studies.defaults confirm --tasks TASKS --out studies/results/confirm.jsonl
    python -m studies.defaults frame --tasks TASKS --out studies/results/frame.jsonl

`crops` varies the augmentation alone. `search` gives each method the same number of configurations, drawn from the same
ranges by the same seed. Each run is trained on every task, at 4 and 16 shots, and measured on validation images alone.
A configuration's score is its mean gain over zero-shot across tasks and shots. Leaving each task out in turn shows
whether the choice would have been right for a task that did not take part in it. `confirm` sets the few configurations
that the search left side by side, at 1 and 4 shots of another draw. `frame` varies the rate and the length for VP,
whose pixels have a scale of their own, at 16 shots.
"""

import random
from typing import Any

from daptune.bench.plan import Experiment, MethodRow
from studies.gains import effects, report
from studies.runs import arguments, part, run_study

TASKS = ("demo", "contrast", "digits", "letters")
SHOTS = (4, 16)
CROPS = ((0.08, 0.5), (0.5, 0.5), (0.5, 0.0), (1.0, 0.5), (1.0, 0.0))  # min_crop, flip
RANGES: dict[str, list[Any]] = {
    "lr": [0.003, 0.01, 0.03],
    "steps": [100, 300],
    "text_tokens": [4, 16],
    "vision_tokens": [4, 16],
    "vision_depth": [1, 0],
    "context_init": ["", "a photo of a"],
    "inter_weight": [0.01, 0.1, 1.0, 10.0],
    "intra_weight": [0.1, 1.0, 10.0, 100.0],
}
WORDS, VISION = ("text_tokens", "context_init"), ("vision_tokens", "vision_depth")
METHODS: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "coop": ("coop", {}, WORDS),
    "vpt": ("vpt", {}, VISION),
    "coop_vpt": ("coop_vpt", {}, (*WORDS, *VISION)),
    "+inter": ("dapt", {"intra_weight": 0.0}, (*WORDS, *VISION, "inter_weight")),
    "+intra": ("dapt", {"inter_weight": 0.0}, (*WORDS, *VISION, "intra_weight")),
    "dapt": ("dapt", {}, (*WORDS, *VISION, "inter_weight", "intra_weight")),
}


CONTEXTS: list[dict[str, Any]] = [{"text_tokens": 16}, {"text_tokens": 4}, {"context_init": "a photo of a"}]
CONFIRMED: list[tuple[dict[str, Any], dict[str, Any]]] = [  # of CoOp, which is quick
    ({}, {"lr": 0.01, "epochs": 50}),
    *((context, {"lr": 0.01, "steps": 200}) for context in CONTEXTS),
    *((CONTEXTS[-1], {"lr": lr, "steps": 200}) for lr in (0.001, 0.003)),
    ({"text_tokens": 4}, {"lr": 0.03, "steps": 200}),
    ({"context_init": "a photo of a"}, {"lr": 0.01, "steps": 200, "views": 8}),
]


PROMPTS = {"context": "16 of noise", "vision_tokens": 16, "vision_depth": 1}
BESIDE: dict[tuple[str, ...], dict[str, Any]] = {  # labels -> the settings that others are set beside
    ("coop",): {"lr": 0.01, "steps": 300, "context": "16 of noise"},
    ("vpt",): {"lr": 0.01, "steps": 300, "vision_tokens": 16, "vision_depth": 1},
    ("coop_vpt", "+inter", "+intra", "dapt"): {
        "lr": 0.01, "steps": 300, **PROMPTS, "inter_weight": 0.0, "intra_weight": 0.0,
    },
}  # fmt: skip


def configurations(label: str, budget: int) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """`budget` draws of (method options, training options) for a row of METHODS."""
    _, fixed, searched = METHODS[label]
    stream = random.Random(f"defaults {label}")
    found: list[tuple[dict[str, Any], dict[str, Any]]] = []
    while len(found) < budget:
        options = {**fixed, **{name: stream.choice(RANGES[name]) for name in searched}}
        train = {name: stream.choice(RANGES[name]) for name in ("lr", "steps")}
        if (options, train) not in found:
            found.append((options, train))
    return found


def crop_configurations() -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """The augmentations, with everything else as it is by default."""
    return [({}, {"lr": 0.01, "steps": 200, "min_crop": share, "flip": flip}) for share, flip in CROPS]


def frame_configurations() -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Rates of VP's pixels, at the default length, and one of them over a quarter of it."""
    return [({}, {"lr": lr, "steps": steps}) for lr, steps in ((0.05, 200), (0.01, 200), (0.002, 200), (0.01, 50))]


def plan(name: str, budget: int) -> list[Experiment]:
    """All runs of a part of the study, zero-shot among them."""
    shots, seed = {"confirm": ((1, 4), 2), "frame": ((16,), 1)}.get(name, (SHOTS, 1))
    compared = {
        "crops": {method: (method, crop_configurations()) for method in ("coop", "coop_vpt")},
        "search": {label: (METHODS[label][0], configurations(label, budget)) for label in METHODS},
        "confirm": {"coop": ("coop", CONFIRMED)},
        "frame": {"vp": ("vp", frame_configurations())},
    }[name]
    rows = [MethodRow("zero_shot", "zero_shot")]
    for label, (method, settings) in compared.items():
        rows += [MethodRow(method, label, options, train) for options, train in settings]
    return [part(TASKS, [row], shots, [seed]) for row in rows]  # configurations of a method share its label


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("part", choices=("crops", "search", "confirm", "frame"))
    parser.add_argument("--budget", type=int, default=8, help="configurations a method")
    options = parser.parse_args()
    rows = run_study("defaults", plan(options.part, options.budget), options)
    print(report(rows))
    if options.part == "search":
        for labels, base in BESIDE.items():
            print(f"\n**{', '.join(labels)}**\n\n{effects(rows, labels, base)}")


if __name__ == "__main__":
    main()
