"""`daptune eval`: an adapter on labelled images."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from daptune.cli.app import app
from daptune.cli.console import emit_json, note, percent, print_table, warnings_shown
from daptune.cli.loading import load_with
from daptune.cli.options import Adapter, Json, NamesFile, RunOptions
from daptune.errors import DataError

if TYPE_CHECKING:
    from daptune.adapter.record import AdapterRecord
    from daptune.classifier import FewShotClassifier
    from daptune.data.cache import Decoder
    from daptune.data.table import ImageTable
    from daptune.measured import Measured

_RUN = RunOptions()


@app.command(name="eval", help_format="markdown")
def evaluate(
    adapter: Adapter,
    folder: Path,
    /,
    *,
    split: Literal["train", "val", "test", "all"] | None = None,
    new_classes: bool = False,
    names: NamesFile = None,
    reject: float | None = None,
    sets: float | None = None,
    transductive: bool = False,
    options: RunOptions = _RUN,
    json: Json = False,
) -> int:
    """Measure an adapter on labelled images: accuracy, macro-F1 and a row for each class.

    Parameters
    ----------
    folder
        Labelled images, as for `daptune fit`; its classes are matched with the adapter's by name.
    split
        Images to measure on; by default `test` if the folder has one, else all.
    new_classes
        Use the class names of the folder instead of the adapter's: the same prompts on other classes.
    reject
        Also say how many images `predict --reject` would call unknown, e.g. 0.05.
    sets
        Also say how often the sets of `predict --sets` hold the truth, and how large they are, e.g. 0.1.
    transductive
        Also measure the answers of `predict --transductive`, to all these images as one set.
    """
    from daptune.cli.fitting import measuring
    from daptune.data.cache import Decoder
    from daptune.data.name_lists import read_names
    from daptune.names import match_names

    if names is not None and not new_classes:
        raise DataError("--names is for --new-classes: the adapter has the names of its own classes; leave it out")
    spoken = None if names is None else read_names(names)
    classifier, decoder = load_with(adapter, options), Decoder()
    with warnings_shown():
        known = None if new_classes else classifier.method_.class_names
        how = {"own_ids": spoken is not None, "multi_label": classifier.multi_label}
        table, name, (seen, held_out) = _images(folder, split, known, record=classifier.record_, decoder=decoder, **how)
        if new_classes:
            labels = table.class_names
            classifier = classifier.with_classes(labels if spoken is None else match_names(labels, spoken))
        classifier.check_judging(reject, sets)
        with measuring(classifier.method, len(table), classifier.batch_size) as tick:
            found, as_set = _measured(classifier, table, reject, transductive, decoder=decoder, after_batch=tick)
        advice = _advice(classifier, table, found, ("report", str(adapter), "--images", str(folder)), decoder)
    judged = _judged(found, reject, sets)
    if json:
        about = {"adapter": str(adapter), "split": name, "images": len(table), "trained_on": seen, "advice": advice}
        emit_json(about | found.to_json(table.class_names) | judged | _together(as_set, table))
        return 0
    _print(f"{adapter} on {len(table)} images ({name})", table, found, as_set, judged, reject, sets)
    for line in filter(None, (_optimistic(seen, len(table), held_out, adapter, folder), advice)):
        note(f"daptune: warning: {line}")
    return 0


def _optimistic(seen: int, images: int, held_out: bool, adapter: Path, folder: Path) -> str | None:
    """A line for figures that count training images, or None."""
    if not seen:
        return None
    again = shlex.join(["daptune", "report", str(adapter), "--images", str(folder)])
    better = f"`{again}` measures those that were held out" if held_out else "measure it on images it has not seen"
    return f"the adapter was trained on {seen} of these {images} images, so the figures are optimistic; {better}"


def _measured(
    classifier: "FewShotClassifier", table: "ImageTable", reject: float | None, transductive: bool, **how: Any
) -> tuple["Measured", "Measured | None"]:
    """The answers to each image alone, and those to the set."""
    if transductive:
        return classifier.transductive(reject).measure(table, **how)
    return classifier.evaluate(table, **how), None


def _together(as_set: "Measured | None", table: "ImageTable") -> dict[str, Any]:
    return {} if as_set is None else {"transductive": as_set.to_json(table.class_names)}


def _advice(
    classifier: "FewShotClassifier", table: "ImageTable", found: "Measured", more: Sequence[str], decoder: "Decoder"
) -> str | None:
    """A line for a backbone that does badly on these images, or None."""
    from daptune.suitability import unsuited_for

    data = classifier.record_.data
    prompts: dict[str, Any] = {"templates": tuple(data.get("templates", ())), "dataset": data.get("dataset")}
    return unsuited_for(
        classifier.method_, table, found.accuracy, **prompts, decoder=decoder, more=shlex.join(["daptune", *more])
    )


def _images(
    folder: Path,
    split: str | None,
    known: Sequence[str] | None,
    *,
    record: "AdapterRecord",
    decoder: "Decoder",
    **how: bool,
) -> tuple["ImageTable", str, tuple[int, bool]]:
    """The images to measure on, their name, how many of them were trained on, and whether that fit held out others.

    They are compared with each other and with training images beside them.
    """
    from daptune.adapter.drawn import draw_again
    from daptune.data.heldout import choose_split, read_images
    from daptune.data.identical import warn_identical

    splits = read_images(folder, label_names=known, training=False, decoder=decoder, **how)
    table, name = choose_split(splits, split, folder, decoder)
    beside = {"train": splits.train} if name in ("val", "test") else {}
    warn_identical({**beside, name: table}, decoder.digest)
    again = draw_again(record, splits, decoder) if name in ("train", "all") else None  # the others hold none of them
    trained = set() if again is None else set(map(id, again.train.images))  # the same objects as in the table
    seen = sum(id(image) in trained for image in table.images)
    return table, name, (seen, again is not None and again.splits.test is not None)


def _judged(found: "Measured", reject: float | None, sets: float | None) -> dict[str, float]:
    """The figures of --reject and --sets."""
    judged: dict[str, float] = {}
    if reject is not None:
        judged["turned_away"] = found.turned_away(reject)
    if sets is not None:
        judged["coverage"], judged["set_size"] = found.covered(sets)
    return judged


def _print(
    title: str,
    table: "ImageTable",
    found: "Measured",
    as_set: "Measured | None",
    judged: Mapping[str, float],
    reject: float | None,
    sets: float | None,
) -> None:
    figures = [(name, percent(value)) for name, value in found.shown.items()]
    if as_set is not None:
        figures.insert(0, ("accuracy as one set", f"{percent(as_set.accuracy)} ({percent(found.accuracy)} alone)"))
    figures.append(("negative log-likelihood", f"{found.nll:.3f}"))
    if reject is not None:
        figures.append((f"called unknown at {reject:g}", percent(judged["turned_away"])))
    if sets is not None:
        size = f"{judged['set_size']:.1f} classes on average"
        figures.append((f"sets at {sets:g} hold the truth", f"{percent(judged['coverage'])}, {size}"))
    print_table(title, ("measure", "value"), figures)
    counts = table.counts()
    order = [int(place) for place in found.per_class.argsort(kind="stable") if counts[place]]
    cells = [(table.class_names[place], counts[place], percent(float(found.per_class[place]))) for place in order]
    print_table("by class, worst first", ("class", "images", found.by_class), cells)
