"""`daptune demo`: fit, compare and predict with the embedded backbone and pictures, without a download."""

import shlex
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from daptune.adapter.record import check_target
from daptune.classifier import FewShotClassifier
from daptune.cli.console import emit_json, percent, print_pairs, print_table, say, size_text
from daptune.cli.fitting import measuring, method_card, training_bar
from daptune.clip.backbone import load_backbone
from daptune.data.cache import Decoder
from daptune.data.demo import demo_styles, extract_demo
from daptune.data.sources import read_source
from daptune.data.table import ImageTable
from daptune.evaluate import Measured, measure_beside, zero_shot
from daptune.methods import Method
from daptune.suitability import PHOTOGRAPHS

SHOTS = 16
EPOCHS = 10
"""Fewer than the default: about a minute on two cores."""
COMPARED = {"coop_vpt": "CoOp + VPT", "dapt": "DAPT"}
"""Methods and their names in the table; the last one is saved, as an ensemble."""
ENSEMBLE = "dapt_ensemble"
"""Its row."""
PREDICTED = 3


def run(out: Path, *, epochs: int | None, seed: int, as_json: bool) -> int:
    """Run the command. Raises DaptuneError if `out` cannot be written."""
    began = time.monotonic()
    target = check_target(out / "adapter")
    tell = (lambda text="": None) if as_json else say
    tell("[bold]1  The embedded backbone and its pictures[/bold]")
    backbone = load_backbone("tiny")
    source, *domains = demo_styles()
    pictures = extract_demo(out / "pictures")
    train, tests = demo_tables(pictures, source, domains)
    tell(f"   A small CLIP that knows emoji and icons, and pictures of {len(train.class_names)} classes in {out}.")
    tell(f"   It learns from {source}; {', '.join(domains)} are styles that it is not trained on.\n")

    training = {"epochs": EPOCHS if epochs is None else epochs}
    decoder = Decoder()
    rows = measure_all(zero_shot(backbone, train.class_names), tests, decoder)
    fitted: dict[str, FewShotClassifier] = {}
    for step, (method, title) in enumerate(COMPARED.items(), start=2):
        tell(f"[bold]{step}  Learn by {title}[/bold]")
        ensemble = "auto" if method == "dapt" else "none"
        classifier = FewShotClassifier(
            method, backbone, shots=SHOTS, seed=seed, train_options=training, ensemble=ensemble
        )
        started = time.monotonic()
        with training_bar(classifier, warn=False) as show:
            classifier.fit(train, progress=show, decoder=decoder)
        if not as_json and not fitted:
            card = method_card(classifier, f"{len(tests[source])} images of concepts that it is not trained on")
            print_pairs({f"   {name}": card[name] for name in ("learns", "prompt", "images", "training", "held out")})
        elif method == "dapt":
            tell("   the same prompts, with two more terms: classes move apart, images towards their class;")
            tell("   then an ensemble: hand-written prompts and the training images answer too")
        tell(f"   done in {time.monotonic() - started:.0f} s\n")
        found = measure_all(classifier.method_, tests, decoder)
        if classifier.method_.ensemble is not None:
            found = {method: found[f"{method} alone"], ENSEMBLE: found[method]}
        rows |= found
        fitted[method] = classifier

    best = fitted[method]
    folder = best.save(target)
    size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    shown = predict_some(best, tests[source])
    seconds = time.monotonic() - began
    if as_json:
        emit_json(_json(rows, shown, out, size, seconds))
        return 0
    _accuracies(rows, tests)
    say(f"[bold]{len(COMPARED) + 3}  Saved[/bold] {out / 'adapter'} ({size_text(size)}). Three predictions:")
    for row in shown:
        mark = "right" if row["label"] == row["truth"] else f"it is {row['truth']}"
        say(f"   {Path(row['file']).name}: {row['label']} ({percent(row['probability'])}), {mark}")
    _next(out)
    say(f"\n{seconds:.0f} s in all.")
    return 0


def _accuracies(rows: Mapping[str, Mapping[str, Measured]], tests: Mapping[str, ImageTable]) -> None:
    titles = {"zero_shot": "zero-shot"} | COMPARED | {ENSEMBLE: "DAPT, ensemble"}
    cells = [(titles[name], *(percent(found[style].accuracy) for style in tests)) for name, found in rows.items()]
    title = f"{len(COMPARED) + 2}  Accuracy: test pictures of the training style, then unseen styles"
    print_table(title, ("method", *tests), cells)


def demo_tables(pictures: Path, source: str, domains: list[str]) -> tuple[ImageTable, dict[str, ImageTable]]:
    """The training images, and the test images by style, the source first; all with one class list."""
    train = read_source(pictures / source / "support").train
    return train, {
        style: read_source(pictures / style / "test", label_names=train.class_names).train
        for style in (source, *domains)
    }


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
    say(f"   photographs need a full-size backbone: daptune fit FOLDER --out my-adapter --backbone {PHOTOGRAPHS}")
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
