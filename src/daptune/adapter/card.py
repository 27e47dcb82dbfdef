"""The adapter's `README.md`, a model card, from the template `card.md`."""

from pathlib import Path
from typing import Any

from daptune.adapter.record import AdapterRecord
from daptune.clip.hub import EMBEDDED, resolve
from daptune.errors import BackboneError

PLACE = "PATH_OF_THIS_FOLDER"
"""Placeholder in the card for the adapter's path; publishing replaces it by the name on the Hub."""


def model_card(record: AdapterRecord, *, title: str, size: int, parameters: int) -> str:
    """Markdown with the metadata header of model hubs.

    `title` is the method's full name, `size` the bytes of the tensor file, `parameters` the number of parameters.
    """
    names = ", ".join(record.class_names[:20]) + (" ..." if len(record.class_names) > 20 else "")
    if record.names is not None:
        spoken = [f"{label} ({', '.join(record.names[label])})" for label in record.class_names[:20]]
        names = ", ".join(spoken) + (" ..." if len(record.class_names) > 20 else "")
    images = f", {record.data['images']} images" if "images" in record.data else ""
    each = f"all{images}" if record.shots is None else shots_text(record)
    made, origin = "Learned with", f"| images per class | {each} |\n"
    if (weights := record.data.get("class_weight")) is not None:
        origin += f"| class weights | {weights if isinstance(weights, str) else 'given by class, in adapter.json'} |\n"
    origin += f"| seed | {record.seed} |"
    if imported := record.data.get("imported_from"):
        made = "Learned with official code and imported into"
        origin = f"| imported from | {_cell(imported)}, epoch {record.data.get('epoch') or 'unknown'} |"
    name = record.backbone["name"]
    repo = _repository(name)
    template = Path(__file__).with_name("card.md").read_text("utf-8")
    beside, answer, unless = "", "", ""
    if record.ensemble.get("similarity"):
        unless = f" `daptune predict --reject 0.05 {PLACE}` calls images unlike the training images unknown."
    if record.ensemble:
        beside = " and an ensemble"
        answer = f" Its answer is an ensemble, a sum of scores with these weights: {record.ensemble_text}."
    if record.multi_label:
        answer = " It judges each class by itself: an image may show several, or none."
    return template.format(
        beside=beside,
        answer=answer,
        unless=unless,
        base=f"base_model: {repo}\nbase_model_relation: adapter\n" if repo else "",
        record=record,
        title=title,
        count=len(record.class_names),
        made=made,
        parameters=parameters,
        kilobytes=size / 1000,
        backbone=_cell(name),
        sha256=record.backbone["sha256"][:16],
        classes=_cell(names),
        origin=origin,
        metrics="".join(f"| {_cell(key)} | {_cell(value)} |\n" for key, value in _flat(record.metrics)),
        place=PLACE,
        licence=_licence(name, repo),
    )


def _repository(backbone: str) -> str:
    try:
        return resolve(backbone).repo
    except BackboneError:  # a file that is no longer there
        return ""


def _licence(backbone: str, repo: str) -> str:
    where = "It is not part of this adapter"
    if repo:
        where += f": daptune fetches it from `{repo}` on the Hub, under the licence stated there"
    elif backbone in EMBEDDED:
        where += ": it comes with daptune, under the licence in its own card"
    else:
        where += ": it was read from a file, whose licence is unknown"
    return (
        f"The backbone is `{backbone}`. {where}. The publisher chooses a licence for the learned parameters: add a "
        "line `license:` to the header of this file."
    )


def _flat(metrics: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested metrics as `outer inner` rows; lists and per-class tables stay in adapter.json."""
    rows: list[tuple[str, Any]] = []
    for name, value in metrics.items():
        label = f"{prefix}{name}".replace("_", " ")
        if isinstance(value, dict):
            if name != "per_class":
                rows += _flat(value, f"{label} ")
        elif isinstance(value, int | float | str):
            rows.append((label, value))
    return rows


def _cell(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


def shots_text(record: AdapterRecord) -> str:
    """Training images per class: those that were used, where the record has them, and the number asked for."""
    images, each, shots = record.data.get("images"), record.data.get("per_class"), record.shots
    total = f", {images:,} images" if isinstance(images, int) else ""
    used = ""
    if isinstance(each, list) and len(each) == 2 and all(isinstance(number, int) for number in each):
        used = f"{each[0]}" if each[0] == each[1] else f"{each[0]} to {each[1]}"
    if shots is None:
        return (
            "all images"
            + (f", {images:,}" if isinstance(images, int) else "")
            + (f": {used} per class" if used else "")
        )
    if used:
        bound = "at least" if record.multi_label else "at most"  # an image counts for each of its labels
        return f"{used} per class{total}" + ("" if used == str(shots) else f"; {bound} {shots} were asked for")
    whole = isinstance(images, int) and images == len(record.class_names) * shots
    return f"{shots} per class{total}" if whole else f"at most {shots} per class{total}"
