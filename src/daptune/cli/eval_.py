"""`daptune eval`: an adapter on labelled images."""

from pathlib import Path

from daptune.cli.console import emit_json, percent, print_table, warnings_shown
from daptune.cli.fitting import measuring, print_classes
from daptune.cli.options import RunOptions, load_with
from daptune.data.cache import Decoder
from daptune.data.heldout import choose_split, read_images


def run(
    adapter: Path, folder: Path, *, split: str | None, new_classes: bool, options: RunOptions, as_json: bool
) -> int:
    """Do it; raises DaptuneError for bad input."""
    classifier, decoder = load_with(adapter, options), Decoder()
    with warnings_shown():
        names = None if new_classes else classifier.method_.class_names
        splits = read_images(folder, label_names=names, training=False, decoder=decoder)
        table, name = choose_split(splits, split, folder, decoder)
        if new_classes:
            classifier = classifier.with_classes(table.class_names)
        with measuring(classifier.method, len(table), classifier.batch_size) as tick:
            found = classifier.evaluate(table, decoder=decoder, after_batch=tick)
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
