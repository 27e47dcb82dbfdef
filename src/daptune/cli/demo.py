"""`daptune demo`: fit, compare and predict with the embedded backbone and pictures, without a download."""

import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from daptune.adapter.record import check_target
from daptune.classifier import FewShotClassifier
from daptune.cli.console import emit_json, percent, print_pairs, print_table, say, size_text
from daptune.cli.fitting import measuring, method_card, training_bar
from daptune.clip.backbone import load_backbone
from daptune.data.cache import Decoder
from daptune.data.demo import PHOTO_ARCHIVE, demo_styles, extract_demo, photograph_sets
from daptune.data.sources import read_source
from daptune.data.table import ImageTable
from daptune.evaluate import measure_beside, zero_shot
from daptune.measured import Measured
from daptune.methods import Method
from daptune.suitability import PHOTOGRAPHS

COMPARED = {"coop_vpt": "CoOp + VPT", "dapt": "DAPT"}
"""Methods and their names in the table; the last one is saved, as an ensemble."""
ENSEMBLE = "dapt_ensemble"
"""Its row."""
PREDICTED = 3


@dataclass(frozen=True)
class Task:
    """Images to learn from, and to measure on by name: first those of the same kind, then unseen styles."""

    train: ImageTable
    tests: Mapping[str, ImageTable]


@dataclass(frozen=True)
class Show:
    """A kind of pictures: `training` keeps the whole to a minute or so on two cores.

    `about` and `columns` are lines for the reader; `full_size` says what published results of a full-size CLIP are.
    """

    backbone: str
    shots: int
    training: Mapping[str, int]
    about: str
    columns: str
    full_size: str = ""


SHOWS = {
    "photographs": Show(
        "photo",
        16,
        {"steps": 60},
        "A small CLIP that knows photographs, and photographs of two data sets in {}.",
        "test photographs of each data set",
        "A full-size CLIP (ViT-B/16) is published with 92.9 % and 47.5 % zero-shot on the whole of these data sets, "
        "and with 96.0 % and 92.0 % after learning prompts from 16 images a class (PLOT++).",
    ),
    "emoji": Show(
        "tiny",
        16,
        {"epochs": 10},
        "A small CLIP that knows emoji and icons, and pictures in four styles in {}. It learns from the first style.",
        "test pictures of the training style, then unseen styles",
    ),
}


def run(out: Path, *, pictures: str, epochs: int | None, seed: int, as_json: bool) -> int:
    """Run the command. Raises DaptuneError if `out` cannot be written."""
    began, show = time.monotonic(), SHOWS[pictures]
    target = check_target(out / "adapter")
    tell = (lambda text="": None) if as_json else say
    tell("[bold]1  The embedded backbone and its pictures[/bold]")
    backbone = load_backbone(show.backbone)
    tasks = read_tasks(pictures, out / "pictures")
    tell(f"   {show.about.format(out / 'pictures')}\n")
    decoder = Decoder()
    rows: dict[str, dict[str, Measured]] = {}
    for task in tasks:
        _add(rows, measure_all(zero_shot(backbone, task.train.class_names), task.tests, decoder))
    for step, method in enumerate(COMPARED, start=2):
        tell(f"[bold]{step}  Learn by {COMPARED[method]}[/bold]")
        started, learned = time.monotonic(), list[FewShotClassifier]()
        for task in tasks:
            explain = None if as_json or learned else partial(_explain, task=task)
            classifier = FewShotClassifier(
                method,
                backbone,
                shots=show.shots,
                seed=seed,
                train_options=show.training if epochs is None else {"epochs": epochs},
                ensemble="auto" if method == "dapt" else "none",
            )
            with training_bar(classifier, warn=False) as bar:
                learned.append(classifier.fit(task.train, progress=bar, decoder=decoder, before=explain))
            found = measure_all(classifier.method_, task.tests, decoder)
            if classifier.method_.ensemble is not None:
                found = {method: found[f"{method} alone"], ENSEMBLE: found[method]}
            _add(rows, found)
        tell(f"   done in {time.monotonic() - started:.0f} s\n")

    best, tests = learned[0], tasks[0].tests
    folder = best.save(target)
    size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    shown = predict_some(best, next(iter(tests.values())))
    seconds = time.monotonic() - began
    if as_json:
        emit_json(_json(rows, shown, out, size, seconds))
        return 0
    _accuracies(rows, [name for task in tasks for name in task.tests], show)
    say(f"[bold]{len(COMPARED) + 3}  Saved[/bold] {out / 'adapter'} ({size_text(size)}). Three predictions:")
    for row in shown:
        mark = "right" if row["label"] == row["truth"] else f"it is {row['truth']}"
        say(f"   {Path(row['file']).name}: {row['label']} ({percent(row['probability'])}), {mark}")
    _next(out)
    say(f"\n{seconds:.0f} s in all.")
    return 0


def read_tasks(pictures: str, folder: Path) -> list[Task]:
    """Unpack the pictures below `folder` and read them: what is learned from, and measured on."""
    if pictures == "emoji":
        source, *domains = demo_styles()
        return [read_task(extract_demo(folder), source, domains)]
    extract_demo(folder, PHOTO_ARCHIVE)
    return [read_task(folder, name, []) for name in photograph_sets()]


def read_task(folder: Path, source: str, domains: Sequence[str]) -> Task:
    """The training images of `source`, its test images and those of the domains; all with one class list."""
    train = read_source(folder / source / "support").train
    tests = {
        name: read_source(folder / name / "test", label_names=train.class_names).train for name in (source, *domains)
    }
    return Task(train, tests)


def _add(rows: dict[str, dict[str, Measured]], found: Mapping[str, Mapping[str, Measured]]) -> None:
    for name, by_test in found.items():
        rows.setdefault(name, {}).update(by_test)


def _explain(classifier: FewShotClassifier, task: Task) -> None:
    """What the first method is about to learn, and what the last one has over it."""
    if classifier.method != "dapt":
        held_out = sum(len(table) for table in task.tests.values())
        card = method_card(classifier, f"{held_out} images that it is not trained on")
        print_pairs({f"   {name}": card[name] for name in ("learns", "prompt", "images", "training", "held out")})
        return
    say("   the same prompts, with two more terms: classes move apart, images towards their class;")
    say("   then an ensemble: hand-written prompts and the training images answer too")


def _accuracies(rows: Mapping[str, Mapping[str, Measured]], tests: Sequence[str], show: Show) -> None:
    titles = {"zero_shot": "zero-shot"} | COMPARED | {ENSEMBLE: "DAPT, ensemble"}
    cells = [(titles[name], *(percent(found[test].accuracy) for test in tests)) for name, found in rows.items()]
    print_table(f"{len(COMPARED) + 2}  Accuracy: {show.columns}", ("method", *tests), cells)
    if show.full_size:
        say(f"   {show.full_size}")


def measure_all(method: Method, tests: Mapping[str, ImageTable], decoder: Decoder) -> dict[str, dict[str, Measured]]:
    """Measure the method on every style: by name as in `measure_beside`, then by style."""
    found: dict[str, dict[str, Measured]] = {}
    for style, table in tests.items():
        with measuring(f"{method.name} on {style}", len(table)) as tick:
            for name, row in measure_beside(method, method, table, decoder=decoder, after_batch=tick).items():
                found.setdefault(name, {})[style] = row
    return found


def predict_some(classifier: FewShotClassifier, table: ImageTable) -> list[dict[str, Any]]:
    """Predictions for a few pictures spread over the table."""
    places = [(2 * n + 1) * len(table) // (2 * PREDICTED) for n in range(PREDICTED)]
    images = [table.images[place] for place in places]
    probabilities = classifier.predict_proba(images)
    return [
        {
            "file": str(image),
            "label": str(classifier.classes_[row.argmax()]),
            "probability": float(row.max()),
            "truth": table.class_names[table.labels[place]],
        }
        for image, place, row in zip(images, places, probabilities, strict=True)
    ]


def _next(out: Path) -> None:
    adapter = shlex.quote(str(out / "adapter"))
    say("\n[bold]Next[/bold]")
    say("   your own images, one folder per class: daptune fit FOLDER --out my-adapter")
    say(f"   with a full-size CLIP, far better:     daptune fit FOLDER --out my-adapter --backbone {PHOTOGRAPHS}")
    say(f"   (350 MB, once; then also offline:      daptune pull {PHOTOGRAPHS})")
    say(f"   use this adapter:                      daptune predict {adapter} PICTURES...")


def _json(
    rows: Mapping[str, Mapping[str, Measured]],
    shown: list[dict[str, Any]],
    out: Path,
    size: int,
    seconds: float,
) -> dict[str, Any]:
    return {
        "adapter": str(out / "adapter"),
        "bytes": size,
        "seconds": seconds,
        "accuracy": {name: {style: row.accuracy for style, row in found.items()} for name, found in rows.items()},
        "predictions": shown,
    }
