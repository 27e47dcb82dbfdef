"""The page of a fit on images with any number of labels: scores, classes, and mistakes of presence and absence."""

from collections.abc import Mapping, Sequence

import numpy as np

from daptune.adapter.record import AdapterRecord
from daptune.data.table import ImageTable
from daptune.measured import Measured, Presence
from daptune.methods.sigmoids import THRESHOLD
from daptune.report.fit_labels import file_of
from daptune.report.page import Section
from daptune.report.step import Step
from daptune.report.steps import MOST_CLASSES, Places
from daptune.report.table import Table, mark_best, number, share, text_row
from daptune.report.thumbnails import gallery

MOST_PICTURES = 12


def presence_sections(table: ImageTable, found: Mapping[str, Measured]) -> list[Section]:
    """Scores, classes and mistakes on a table that was measured; the last of `found` is the method."""
    rows = {name: row for name, row in found.items() if isinstance(row, Presence)}
    learned = list(rows.values())[-1]
    return [
        Section("scores", "Scores", tables=[_scores(rows)]),
        Section("classes", "By class", tables=[_classes(table.class_names, rows)]),
        _mistakes(table, learned, there=True),
        _mistakes(table, learned, there=False),
    ]


def presence_says(record: AdapterRecord, found: Mapping[str, Measured], where: str) -> list[str]:
    """The findings in sentences."""
    learned = list(found.values())[-1]
    beside = ""
    if "zero_shot" in found and record.method != "zero_shot":
        beside = f", zero-shot CLIP {100 * found['zero_shot'].headline:.1f} %"
    first = f"{record.method} has a mean average precision (mAP) of {100 * learned.headline:.1f} % on {where}{beside}."
    order = [c for c in np.argsort(learned.per_class, kind="stable").tolist() if learned.per_class[c] >= 0]
    worst = "; ".join(f"{record.class_names[c]} ({100 * learned.per_class[c]:.1f} %)" for c in order[:3])
    exact = f"Exactly the right classes are predicted for {100 * learned.accuracy:.1f} % of the images."
    return [first, f"Classes with the lowest average precision: {worst}.", exact]


def presence_steps(record: AdapterRecord, found: Mapping[str, Measured], places: Places) -> list[Step]:
    """What to do next, the step that likely helps most first; the last of `found` is the method."""
    learned, steps, images = list(found.values())[-1], list[Step](), places.images or "IMAGES"
    if "zero_shot" in found and learned.headline < found["zero_shot"].headline:
        text = "Zero-shot CLIP ranks better on these images than what was learned: take it, or more training images."
        again = ("--multi-label", "--method", "zero_shot", "--out", places.adapter)
        steps.append(Step(text, places.command("fit", images, *again)))
    if all(level == THRESHOLD for level in record.thresholds or ()):
        text = "All thresholds are 0.5: give rows of the table the split val, and fit again, to fit thresholds to them."
        steps.append(Step(text))
    order = [c for c in np.argsort(learned.per_class, kind="stable").tolist() if learned.per_class[c] < 1]
    if order:
        listed = ", ".join(record.class_names[c] for c in order[:MOST_CLASSES])
        steps.append(Step(f"Add training images of {listed}: their average precision is the lowest."))
    return steps


def _scores(found: Mapping[str, Presence]) -> Table:
    rows = [
        text_row(name, *map(share, row.shown.values()), share(row.accuracy), number(row.nll, ".3f"))
        for name, row in found.items()
    ]
    images = len(next(iter(found.values())).labels)
    columns = ("method", "mAP, %", "macro-F1, %", "micro-F1, %", "all classes right, %", "binary cross-entropy, nats ↓")
    return Table("scores", f"Scores on {images} images", columns, mark_best(rows, (1, 2, 3, 4)))


def _classes(names: Sequence[str], found: Mapping[str, Presence]) -> Table:
    """Lowest average precision first; classes without images last."""
    learned, plain = list(found.values())[-1], next(iter(found.values()))
    y, said = learned.labels, learned.predicted
    rows = []
    for c in np.argsort(learned.per_class, kind="stable").tolist():
        counts = (y[:, c].sum(), (y[:, c] & ~said[:, c]).sum(), (~y[:, c] & said[:, c]).sum())
        figures = (learned.per_class[c], *([plain.per_class[c]] if plain is not learned else ()), learned.class_f1[c])
        cells = [share(float(value) if value == value else None) for value in figures]
        rows.append(text_row(names[c], *(number(int(n)) for n in counts), *cells, share(float(learned.thresholds[c]))))
    beside = [f"{next(iter(found))} AP, %"] if plain is not learned else []
    columns = ("class", "images", "missed", "false", "AP, %", *beside, "F1, %", "threshold, %")
    return Table("classes", "All classes, lowest average precision (AP) first", columns, tuple(rows))


def _mistakes(table: ImageTable, found: Presence, *, there: bool) -> Section:
    """The classes that were missed with the lowest probability, or said to be there with the highest."""
    y, p, names = found.labels, found.probabilities, table.class_names
    wrong = np.argwhere(y & ~found.predicted if there else ~y & found.predicted)
    order = np.argsort(p[tuple(wrong.T)] if there else -p[tuple(wrong.T)], kind="stable")[:MOST_PICTURES]
    anchor, title = ("missed", "Classes that were missed") if there else ("false", "Classes that are not there")
    if not len(order):
        text = "No class that is there is missed." if there else "No class is predicted that is not there."
        return Section(anchor, title, text)
    items = []
    for row, c in wrong[order].tolist():
        lines = [
            f"{100 * p[row, c]:.0f} %, threshold {100 * found.thresholds[c]:.0f} %",
            f"labelled {table.label_text(row) or 'with none of the classes'}",
            file_of(table, row),
        ]
        items.append((table.images[row], names[c], lines))
    what = "there, with the lowest probability" if there else "not there, with the highest probability"
    text = f"The {len(items)} of {len(wrong)} mistakes on a class that is {what}."
    return Section(anchor, title, text, more=[gallery(items)])
