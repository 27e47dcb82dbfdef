"""The page of one `daptune fit`: training, errors, calibration, and labels to check."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from daptune import metrics
from daptune.adapter.drawn import HeldOut
from daptune.adapter.record import AdapterRecord
from daptune.bench.measure import evenly
from daptune.calibration import scaled
from daptune.data.cache import Decoder
from daptune.data.table import ImageTable
from daptune.evaluate import BATCH, measure_beside
from daptune.measured import Measured
from daptune.methods import Method
from daptune.methods.mislabelled import LabelCheck, judge_labels
from daptune.report.board import MEANING, verdict
from daptune.report.embedding import MOST_IMAGES, encode, map_figures
from daptune.report.fit_charts import confusion_figure, loss_figures, reliability_figures
from daptune.report.fit_command import recorded_command
from daptune.report.fit_labels import labels_finding, labels_section
from daptune.report.fit_mistakes import mistakes_section
from daptune.report.fit_presence import presence_says, presence_sections, presence_steps
from daptune.report.fit_tables import (
    class_table,
    confused_table,
    recorded_class_table,
    scores_table,
    settings_table,
    sure_table,
    words_table,
)
from daptune.report.html import tag
from daptune.report.page import Page, Section
from daptune.report.steps import Places, class_hits, next_steps, share_of
from daptune.report.table import signed
from daptune.suitability import unsuited
from daptune.train import History

REJECT, ERROR = 0.05, 0.1
"""The shares of `predict --reject` and `--sets` that are measured."""
MIN_SHARE = float(np.finfo(np.float32).tiny)
Note = Callable[[str], object]


@dataclass(frozen=True)
class Scored:
    """Predictions of the method and of zero-shot CLIP on test images."""

    table: ImageTable
    found: dict[str, Measured]  # zero-shot first, the method last, before it what its ensemble's prompts say alone

    @property
    def learned(self) -> Measured:
        return list(self.found.values())[-1]


def fit_page(
    record: AdapterRecord,
    method: Method | None,
    *,
    history: History | None = None,
    images: HeldOut | None = None,
    baseline: Method | None = None,
    words: Sequence[Mapping[str, Any]] = (),
    batch_size: int = BATCH,
    decoder: Decoder | None = None,
    name: str = "adapter",
    places: Places | None = None,
    made_by: Sequence[str] = (),
    command: Sequence[str] = (),
    note: Note = str,
) -> Page:
    """The page. Without `method` (if its backbone is missing) or `images` it has fewer sections.

    `baseline` is the zero-shot classifier, `words` are the vocabulary words nearest to each learned text token.
    `made_by` is the command line of the fit, by default one that the record tells, and `command` that of the report.
    """
    places = places or Places(name)
    scored = None
    if method is not None and images is not None and images.test is not None:
        note("measuring")
        scored = _score(method, baseline or method, images.test, record.temperature, batch_size, decoder)
    several = record.multi_label
    sections, check = _measured(record, scored, method, history, note), None
    if method is not None and images is not None and baseline is not None and not several:
        if images.train is not None:
            note("looking for wrong labels")
            check = _check_labels(baseline, images.train, batch_size)
            sections.append(labels_section(images.train, check))
        if images.test is not None:
            note("drawing maps")
            sections.append(_maps((baseline, method), evenly(images.test, MOST_IMAGES), batch_size))
    if words:
        sections.append(_words(words))
    made_by = made_by or recorded_command(record, places.images or "IMAGES", places.adapter)
    sections.append(_repeat(record, made_by, command))
    says = _says(record, scored, images)
    if check is not None and check.checked:
        says.append(labels_finding(check))
    found, other = None if scored is None else scored.found, _other_backbone(record, method, scored)
    steps = presence_steps(record, found, places) if several and found else []
    if not steps:
        judged = None if several else found
        steps = next_steps(record.class_names, places, found=judged, check=check, backbone=other, shots=record.shots)
    title = f"{record.method} on {len(record.class_names)} classes"
    return Page(title, f"Report of {name}", says, sections, _facts(record), steps=steps)


def _measured(
    record: AdapterRecord, scored: Scored | None, method: Method | None, history: History | None, note: Note
) -> list[Section]:
    """Scores, training, classes, calibration and mistakes, as far as they are known."""
    training = []
    if history is not None and history.rows:
        caption = "Means over the augmented training images of an epoch, measured during training."
        training.append(Section("training", "Training", figures=loss_figures(history.rows), caption=caption))
    if scored is None:
        return training + _classes(record, scored)
    if record.multi_label:
        note("looking at mistakes")
        scores, *others = presence_sections(scored.table, scored.found)
        return [scores, *training, *others]
    scores = Section("scores", "Scores", tables=[scores_table(scored.found)])
    sections = [scores, *training, *_classes(record, scored), _calibration(scored, record), *_sure(scored)]
    if method is not None:
        note("looking at mistakes")
        sections.append(mistakes_section(method, scored.table, scored.learned))
    return sections


def _facts(record: AdapterRecord) -> list[tuple[str, str]]:
    return [
        ("method", record.method),
        ("backbone", record.backbone["name"]),
        ("classes", str(len(record.class_names))),
        ("training images", str(record.data.get("images", "?"))),
        ("seed", str(record.seed)),
    ]


def _score(
    method: Method, baseline: Method, table: ImageTable, temperature: float, batch_size: int, decoder: Decoder | None
) -> Scored:
    found = measure_beside(baseline, method, table, temperature=temperature, batch_size=batch_size, decoder=decoder)
    if table.multi_label:
        return Scored(table, found)
    exact = {name: row.probabilities.astype(np.float64) for name, row in found.items()}
    rows = {
        name: replace(found[name], probabilities=p / p.sum(axis=1, keepdims=True), labels=table.labels)
        for name, p in exact.items()
    }
    return Scored(table, rows)


def _other_backbone(record: AdapterRecord, method: Method | None, scored: Scored | None) -> str | None:
    """The line on a backbone that does badly, by the measured images or, without, by those that `fit` measured."""
    if record.multi_label:
        return None
    names = record.names or {name: [name] for name in record.class_names}
    figures: dict[str, float | None]
    if scored is not None:
        figures = {name: row.accuracy for name, row in scored.found.items()}
        images = len(scored.learned.labels)
    else:
        held_out = record.metrics.get("held_out", {})
        images = held_out.get("images", 0)
        figures = {name: held_out.get(name, {}).get("accuracy") for name in ("zero_shot", record.method)}
    plain, answer = figures.get("zero_shot"), figures.get(record.method)
    if plain is None:
        return None
    encode = None if method is None else method.backbone.tokenizer.spelling
    return unsuited(record.backbone["name"], names, images, plain, answer, encode=encode)


def _classes(record: AdapterRecord, scored: Scored | None) -> list[Section]:
    if scored is None:
        table = recorded_class_table(record)
        return [Section("classes", "By class", tables=[table])] if table is not None else []
    names = record.class_names
    matrix = metrics.confusion_matrix(scored.learned.labels, scored.learned.predicted, len(names))
    figure, pairs = confusion_figure(matrix, names), confused_table(matrix, names)
    figures = [figure] if figure is not None else []
    caption = "Blue: correct, orange: wrong. Shades are shares of the true class, numbers are images."
    tables = [*([pairs] if pairs is not None else []), class_table(names, scored.found)]
    return [Section("classes", "By class", figures=figures, caption=caption, tables=tables)]


def _calibration(scored: Scored, record: AdapterRecord) -> Section:
    text = (
        "Accuracy by confidence of the prediction. On the dashed line, confidence equals accuracy; below it, "
        "predictions are overconfident. Larger points are more images. The expected calibration error (ECE, 15 bins) "
        "is the mean length of the orange lines, weighted by images."
    )
    if record.temperature != 1:
        p = scaled(np.log(np.maximum(scored.learned.probabilities, MIN_SHARE)), 1 / record.temperature)
        plain = metrics.expected_calibration_error(scored.learned.labels, p)
        text += (
            f" The temperature of the adapter, {record.temperature:.2f}, changes that of {record.method} on these "
            f"images from {100 * plain:.1f} to {100 * scored.learned.calibration_error:.1f} points."
        )
    return Section("calibration", "Calibration", text, figures=reliability_figures(scored.found))


def _sure(scored: Scored) -> list[Section]:
    """What --reject and --sets make of the images; nothing without statistics of known images."""
    if scored.learned.known is None:
        return []
    text = (
        "All images show one of the classes, so that about as many should be called unknown as --reject allows, and "
        "sets should miss the truth about as often as --sets allows, if the images are like the training images."
    )
    return [Section("sure", "Unknown images and sets", text, tables=[sure_table(scored.learned, REJECT, ERROR)])]


def _check_labels(baseline: Method, table: ImageTable, batch_size: int) -> LabelCheck:
    """By features of the frozen CLIP and its hand-written prompts."""
    w0 = baseline.text_features().detach().double().cpu().numpy()
    return judge_labels(encode(baseline, table, batch_size=batch_size).images, table.labels, w0)


def _maps(methods: Sequence[Method], table: ImageTable, batch_size: int) -> Section:
    """Of zero-shot CLIP and of the method, which may be the same."""
    found = {one.name: encode(one, table, batch_size=batch_size) for one in methods}
    silhouettes = ", ".join(f"{name} {features.silhouette():.3f}" for name, features in found.items())
    size = next(iter(found.values())).images.shape[1]
    caption = (
        "t-SNE of unit features of images and of the class texts (stars). Only neighbourhoods are meaningful, not "
        "distances or group sizes. Images and texts are centred separately so that they share a map. Names that would "
        f"cover others are left out. Silhouette of the images by class (in all {size} dimensions): {silhouettes}."
    ).replace("-0.", "−0.")
    times = (" (before)", " (after)") if len(found) > 1 else ("",)
    maps = [(name + time, features) for (name, features), time in zip(found.items(), times, strict=True)]
    figures = map_figures("map", methods[-1].class_names, maps)
    return Section("maps", "Features before and after training", figures=figures, caption=caption)


def _words(words: Sequence[Mapping[str, Any]]) -> Section:
    text = (
        "Vocabulary words nearest to each learned text token. They rarely form a sentence, because tokens move freely "
        "between words. If the distance is close to that of two random words, the nearest word means nothing."
    )
    return Section("words", "Words nearest to the prompt", text, tables=[words_table(words)])


def _repeat(record: AdapterRecord, made_by: Sequence[str], command: Sequence[str]) -> Section:
    lines = [shlex.join(words) for words in (made_by, command) if words]
    typed = tag("pre", tag("code", "\n".join(lines)))
    return Section("repeat", "To repeat this", typed, folded=[settings_table(record)])


def _says(record: AdapterRecord, scored: Scored | None, images: HeldOut | None) -> list[str]:
    lines = [images.remark] if images is not None and images.remark else []
    if scored is None:
        held_out = record.metrics.get("held_out", {})
        figure = "mean_average_precision" if record.multi_label else "accuracy"
        own, plain = (held_out.get(name, {}).get(figure) for name in (record.method, "zero_shot"))
        if own is not None and record.multi_label:
            where = f"{held_out.get('images')} held-out images (measured by `daptune fit`)"
            return [f"{record.method} has a mean average precision (mAP) of {100 * own:.1f} % on {where}.", *lines]
        if own is None:
            return [f"{record.method} learned {len(record.class_names)} classes; nothing was measured.", *lines]
        first = f"{record.method} classifies {100 * own:.1f} % of {held_out.get('images')} held-out images correctly"
        beside = f", zero-shot CLIP {100 * plain:.1f} %" if plain is not None and record.method != "zero_shot" else ""
        return [f"{first}{beside} (measured by `daptune fit`).", *lines]
    where = f"{len(scored.table)} images" + ("" if images is None else f" ({images.name})")
    if record.multi_label:
        return [*presence_says(record, scored.found, where), *lines]
    hits = {name: row.correct.astype(float) for name, row in scored.found.items()}
    own = hits[record.method]
    first = f"{record.method} classifies {100 * own.mean():.1f} % of {where} correctly"
    if "zero_shot" in hits and record.method != "zero_shot":
        d = metrics.paired_bootstrap([(hits["zero_shot"], own)])
        word = "more" if d.difference >= 0 else "less"
        first += (
            f", {abs(100 * d.difference):.1f} percentage points {word} than zero-shot CLIP (the 95 % interval "
            f"{signed(d.low)} to {signed(d.high)} {MEANING[verdict(d)]})"
        )
    if (alone := hits.get(f"{record.method} alone")) is not None:
        lines.insert(0, f"The learned prompts alone, without the ensemble, classify {100 * alone.mean():.1f} %.")
    recall = scored.learned.per_class
    known = np.flatnonzero(~np.isnan(recall))
    worst = known[np.argsort(recall[known], kind="stable")][:3]
    rights, counts = class_hits(scored.learned, len(record.class_names))
    listed = "; ".join(
        f"{record.class_names[place]} ({share_of(int(rights[place]), int(counts[place]))})" for place in worst
    )
    error = scored.learned.calibration_error
    surer = scored.learned.probabilities.max(axis=1).mean() - own.mean()
    tendency = "overconfident" if surer > 0 else "underconfident"
    return [
        first + ".",
        f"Classes with the lowest recall: {listed}.",
        f"The expected calibration error is {100 * error:.1f} percentage points; on average it is {tendency}.",
        *lines,
    ]
