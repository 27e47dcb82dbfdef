"""Training labels to check: the section of a fit report, and the list of all labels as a CSV file."""

from pathlib import Path

from daptune.data.table import ImageTable, describe
from daptune.methods.mislabelled import LabelCheck
from daptune.report.page import Section, kept
from daptune.report.table import Cell, Table, text_row
from daptune.report.thumbnails import gallery

MOST_PICTURES = 12


def labels_section(table: ImageTable, check: LabelCheck) -> Section:
    """The least probable labels as images, and what is known of all of them."""
    names = table.class_names
    how = (
        "Each image is classified by CLIP's hand-written prompts and by the other training images, without the image "
        "itself and without learned prompts. A label is flagged if it is more probably wrong than right, under the "
        "estimated share of wrong labels. Check an image before you change its label: unusual images are flagged too."
    )
    if unchecked := len(table) - check.checked:
        how += f" {unchecked} images are alone in their classes, and cannot be checked."
    items = []
    for row in check.order[:MOST_PICTURES].tolist():
        given, likely = int(check.given[row]), int(check.likely[row])
        title = f"labelled {names[given]} ({_percent(check.own[row])})"
        seems = "most probable" if likely == given else f"most probable: {names[likely]}"
        lines = [f"{seems} ({_percent(check.likely_own[row])})", "flagged" if check.flagged[row] else "not flagged"]
        items.append((table.images[row], title, [*lines, file_of(table, row)]))
    if not items:
        text = "No label can be checked: that needs two or more images of a class."
        return Section("labels", "Training labels to check", text, files=[labels_table(table, check)])
    text = (
        f"{labels_finding(check)} The file labels.csv lists all {len(table)} labels, least probable first; the first "
        f"{len(items)} are shown. {how}"
    )
    files = [labels_table(table, check)]
    return Section("labels", "Training labels to check", text, more=[gallery(items)], files=files)


def labels_finding(check: LabelCheck) -> str:
    """Two sentences: how many labels are probably wrong, and how many flags there would be without wrong labels."""
    flagged = int(check.flagged.sum())
    return (
        f"About {check.wrong:.0f} of {check.checked} training labels are wrong by estimate, and {flagged} are flagged. "
        f"If all labels were right, about {check.expected:.1f} would be flagged."
    )


def labels_table(table: ImageTable, check: LabelCheck) -> Table:
    """All labels, least probable first; those that cannot be checked come last, without probabilities."""
    names, rows = table.class_names, []
    unchecked = [row for row in range(len(table)) if check.own[row] != check.own[row]]
    for row in check.order.tolist():
        own, most = (float(values[row]) for values in (check.own, check.likely_own))
        cells = (names[check.given[row]], Cell("", own), names[check.likely[row]], Cell("", most))
        rows.append(text_row(file_of(table, row), *cells, "yes" if check.flagged[row] else "no"))
    rows += [text_row(file_of(table, row), names[check.given[row]], *[Cell("")] * 4) for row in unchecked]
    columns = ("path", "label", "probability", "most probable", "its probability", "flagged")
    return Table("labels", "All training labels, least probable first", columns, tuple(rows))


def file_of(table: ImageTable, row: int) -> str:
    """The path of an image below the table's root, or a short description."""
    source = table.images[row]
    if isinstance(source, Path) and table.root is not None and source.is_relative_to(table.root):
        return source.relative_to(table.root).as_posix()
    return describe(source)


def _percent(value: float) -> str:
    return kept(f"{100 * value:.0f} %" if value >= 0.01 else "under 1 %")
