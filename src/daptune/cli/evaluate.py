"""`daptune eval`: an adapter on labelled images."""

from pathlib import Path

from daptune.cli.console import emit_json, percent, print_table, warnings_shown
from daptune.cli.options import RunOptions
from daptune.cli.setup import CHECK_ALL, load_with, read_images, readable
from daptune.cli.tables import print_classes
from daptune.cli.training import measure
from daptune.data.table import ImageTable, Splits
from daptune.errors import DataError


def run(
    adapter: Path, folder: Path, *, split: str | None, new_classes: bool, options: RunOptions, as_json: bool
) -> int:
    """Do it; raises DaptuneError for bad input."""
    classifier = load_with(adapter, options)
    with warnings_shown():
        names = None if new_classes else classifier.method_.class_names
        splits = read_images(folder, label_names=names, training=False)
        table, name = choose_split(splits, split, folder)
        if len(table) > CHECK_ALL:
            table = readable(table)
        if new_classes:
            classifier = classifier.with_classes(table.class_names)
        found = measure(classifier.method_, table, batch_size=options.batch_size or 64)
    if as_json:
        emit_json({"adapter": str(adapter), "split": name, "images": len(table), **found.to_json(table.class_names)})
        return 0
    print_table(
        f"{adapter} on {len(table)} images ({name})",
        ("measure", "value"),
        [
            ("accuracy", percent(found.accuracy)),
            ("macro-F1", percent(found.macro_f1)),
            ("negative log-likelihood", f"{found.nll:.3f}"),
        ],
    )
    print_classes(table.class_names, table.counts().tolist(), found)
    return 0


def choose_split(splits: Splits, split: str | None, folder: Path) -> tuple[ImageTable, str]:
    """The table that is asked for and its name; by default the test images, or all where there are no splits."""
    present = splits.present()
    if split is None:
        split = "test" if "test" in present else "all"
    if split == "all":
        return splits.whole(), "all"
    if split not in present:
        raise DataError(f"{folder} has no {split} images; it has {', '.join(present)}. Leave out --split for all.")
    return present[split], split
