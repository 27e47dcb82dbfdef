"""The tables of a fit report."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daptune import metrics
from daptune.adapter.record import AdapterRecord
from daptune.measured import Measured
from daptune.report.table import Cell, Table, mark_best, number, points, share, text_row

MOST_PAIRS = 15


def scores_table(found: Mapping[str, Measured]) -> Table:
    """Accuracy, macro-F1, log-likelihood and calibration error of each method, by name."""
    rows = [
        text_row(name, share(row.accuracy), share(row.macro_f1), number(row.nll, ".3f"), share(row.calibration_error))
        for name, row in found.items()
    ]
    images = len(next(iter(found.values())).labels)
    columns = ("method", "accuracy, %", "macro-F1, %", "negative log-likelihood, nats ↓", "ECE, points ↓")
    return Table("scores", f"Scores on {images} images", columns, mark_best(rows, (1, 2)))


def sure_table(found: Measured, reject: float, error: float) -> Table:
    """What `predict --reject` and `--sets` make of the images, all of which show a class."""
    covered, size = found.covered(error)
    rows = (
        text_row(f"called unknown at --reject {reject:g}, %", share(found.turned_away(reject))),
        text_row(f"sets hold the true class at --sets {error:g}, %", share(covered)),
        text_row("classes in a set on average", number(size, ".1f")),
    )
    return Table("sure", f"Unknown images and sets on {len(found.labels)} images", ("measure", "value"), rows)


def class_table(names: Sequence[str], found: Mapping[str, Measured]) -> Table:
    """A row per class with images, for the last of `found`, lowest recall first, compared with the first of `found`."""
    size = len(names)
    matrices = [metrics.confusion_matrix(row.labels, row.predicted, size) for row in found.values()]
    matrix = matrices[-1]
    counts, said, right = matrix.sum(axis=1), matrix.sum(axis=0), matrix.diagonal()
    plain = matrices[0].diagonal() / np.maximum(counts, 1) if len(found) > 1 else None
    rows = []
    for c in sorted(np.flatnonzero(counts).tolist(), key=lambda c: (right[c] / counts[c], c)):
        recall, f1 = right[c] / counts[c], 2 * right[c] / (counts[c] + said[c])
        precision = right[c] / said[c] if said[c] else float("nan")
        wrong = np.where(np.arange(size) == c, 0, matrix[c])
        taken = names[int(wrong.argmax())] if wrong.any() else "–"
        low, high = metrics.share_interval(int(right[c]), int(counts[c]))
        cells = [share(float(recall)), Cell(f"{100 * low:.0f} to {100 * high:.0f}")]
        cells += [share(float(value)) for value in (precision, f1)]
        if plain is not None:
            change = float(recall - plain[c])
            tone = "up" if change > 0 else "down" if change < 0 else ""
            cells += [share(float(plain[c])), points(change, tone=tone)]
        rows.append(text_row(names[c], taken, number(int(counts[c])), *cells))
    columns = ["class", "most confused with", "images", "recall, %", "95 % interval", "precision, %", "F1, %"]
    if plain is not None:
        columns += [f"{next(iter(found))} recall, %", "change of recall"]
    return Table("classes", "All classes, lowest recall first", tuple(columns), tuple(rows), left=2)


def confused_table(matrix: NDArray[np.int64], names: Sequence[str]) -> Table | None:
    """The most confused pairs of classes; None without any."""
    both = np.triu(matrix + matrix.T, 1).tolist()
    pairs = [(-count, a, b) for a, row in enumerate(both) for b, count in enumerate(row) if count > 1]
    if not pairs:
        return None
    rows = [
        text_row(names[a], names[b], number(-count), number(int(matrix[a, b])))
        for count, a, b in sorted(pairs)[:MOST_PAIRS]
    ]
    columns = ("class", "and class", "mistakes", "first predicted as second")
    caption = f"Most confused pairs: {len(rows)} of {len(pairs)} pairs with more than one mistake"
    return Table("confused", caption, columns, tuple(rows), left=2)


def recorded_class_table(record: AdapterRecord) -> Table | None:
    """The recall per class that `fit` measured and recorded; None without it."""
    held_out = record.metrics.get("held_out", {})
    own = held_out.get(record.method, {}).get("per_class")
    if not isinstance(own, dict) or not own:
        return None
    plain = held_out.get("zero_shot", {}).get("per_class", {}) if record.method != "zero_shot" else {}
    rows = []
    for name, value in sorted(own.items(), key=lambda item: (item[1], item[0])):
        beside = (share(plain.get(name)), points(value - plain.get(name, math.nan))) if plain else ()
        rows.append(text_row(name, share(value), *beside))
    columns = ("class", f"{record.method}, %", *(("zero_shot, %", "difference") if plain else ()))
    figure = "Average precision" if record.multi_label else "Recall"
    caption = f"{figure} on {held_out.get('images')} held-out images, lowest first"
    return Table("classes", caption, columns, tuple(rows))


def words_table(tokens: Sequence[Mapping[str, Any]]) -> Table:
    """A row per learned text token with its words, nearest first."""
    rows = []
    for row in tokens:
        words = ", ".join(_legible(str(word["word"])) for word in row["words"])
        rows.append(text_row(str(row["token"]), words, number(float(row["words"][0]["distance"]), ".2f")))
    return Table("words", "Words by learned token", ("token", "nearest words", "distance of the first"), tuple(rows), 2)


def _legible(word: str) -> str:
    """Replace vocabulary entries that are only some bytes of a letter."""
    return word if word and word.isprintable() and "\ufffd" not in word else "(no text)"


def settings_table(record: AdapterRecord) -> Table:
    values = {
        "method": record.method,
        **{f"option {name}": value for name, value in record.method_config.items()},
        **{f"training {name}": value for name, value in record.train_config.items()},
        "ensemble": record.ensemble_text,
        "temperature": record.temperature,
        "shots": "all" if record.shots is None else record.shots,
        "seed": record.seed,
        **{f"backbone {name}": value for name, value in record.backbone.items()},
        **{f"data {name}": value for name, value in record.data.items()},
        "sha256 of the learned tensors": record.tensors_sha256,
        **{f"version of {name}": value for name, value in record.versions.items()},
    }
    rows = tuple(text_row(name, str(value)) for name, value in values.items())
    return Table("settings", "Settings to repeat this fit", ("setting", "value"), rows, left=2)
