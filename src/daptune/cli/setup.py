"""What the verbs have in common before the work: reading images, and setting what cannot be read aside."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from daptune.adapter.record import read_record
from daptune.adapter.sharing import find_adapter
from daptune.classifier import FewShotClassifier, load
from daptune.cli.console import note
from daptune.cli.options import RunOptions
from daptune.clip.backbone import load_backbone
from daptune.data.check import check_readable, drop_unreadable
from daptune.data.sources import read_source
from daptune.data.table import ImageTable, Splits
from daptune.errors import DataError, MethodError

CHECK_ALL = 5_000
"""Up to so many images all are decoded at the start; of more, only those that are used, when they are."""


def key_values(words: Iterable[str]) -> dict[str, str]:
    """`--set name=value` as a dict; MethodError for a word without `=`."""
    pairs: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name.strip():
            raise MethodError(f"--set expects option=value, such as inter_weight=1; found {word!r}")
        pairs[name.strip().replace("-", "_")] = value.strip()
    return pairs


def read_images(folder: Path, *, label_names: Sequence[str] | None = None, training: bool = True) -> Splits:
    """Read a source as `read_source` and leave out, with one list on stderr, what cannot be decoded.

    Raises DataError as `read_source`, and where a class is left without any image to learn from.
    """
    splits = read_source(folder, label_names=label_names, training=training)
    if splits.ignored:
        names = ", ".join(path.name for path in splits.ignored[:3]) + (", ..." if len(splits.ignored) > 3 else "")
        note(f"daptune: left out {len(splits.ignored)} files that are no images: {names}")
    tables, whole = splits.present(), splits.whole()
    if len(whole) > CHECK_ALL:
        return splits
    report = check_readable(whole)
    if not report:
        return splits
    drop_unreadable(whole, report)  # lists them; raises where a class is lost altogether
    bad = {item.index for item in report.unreadable}
    kept: dict[str, ImageTable] = {}
    start = 0
    for split, table in tables.items():
        kept[split] = table.subset([row for row in range(len(table)) if start + row not in bad])
        start += len(table)
    if "train" in kept:
        lost = (splits.train.counts() > 0) & (kept["train"].counts() == 0)
        if lost.any():
            name = splits.train.class_names[int(lost.argmax())]
            raise DataError(f"no training image of {name!r} can be read; replace the files.")
    return Splits.of({split: table for split, table in kept.items() if len(table)}, splits.ignored)


def load_with(adapter: Path, options: RunOptions) -> FewShotClassifier:
    """A saved adapter on the device, in the precision and on the copy of its backbone that the options name."""
    if options.batch_size is not None and options.batch_size < 1:
        raise DataError(f"--batch-size must be at least 1; found {options.batch_size}")
    if options.backbone is None:
        return load(adapter, precision=options.precision, device=options.device)
    adapter = find_adapter(adapter)
    record = read_record(adapter)
    precision = options.precision or record.backbone.get("precision", "auto")
    backbone = load_backbone(options.backbone, precision=precision, device=options.device)
    return load(adapter, backbone, device=options.device)


def readable(table: ImageTable) -> ImageTable:
    """The table without what cannot be read; for tables that were too large to check at the start."""
    return drop_unreadable(table, check_readable(table))
