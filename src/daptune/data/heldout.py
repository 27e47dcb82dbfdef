"""Read the images of a source, leave out unreadable ones, and choose those to train and to test on."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from daptune.data.cache import Decoder
from daptune.data.check import DecodeReport, Unreadable, check_readable, drop_unreadable, without_missing
from daptune.data.fewshot import FewShot, sample_fewshot, split_holdout
from daptune.data.formats import left_out, what_to_do
from daptune.data.identical import warn_identical
from daptune.data.sources import read_source
from daptune.data.table import ImageTable, Splits
from daptune.errors import DataError

CHECK_ALL = 5_000
"""Sources of up to this many images are decoded completely at the start; in larger ones only the images used."""

_log = logging.getLogger("daptune")


def read_images(
    source: object,
    *,
    label_names: Sequence[str] | None = None,
    training: bool = True,
    own_ids: bool = False,
    multi_label: bool = False,
    decoder: Decoder | None = None,
) -> Splits:
    """Read a source as `read_source` does and leave out images that cannot be decoded, with one list in the log.

    Raises DataError as `read_source` does, and for a class that is left without training images.
    """
    splits = read_source(source, label_names=label_names, training=training, own_ids=own_ids, multi_label=multi_label)
    where = str(source) if isinstance(source, str | Path) else "the source"
    splits = without_missing(splits, where, every_class=label_names is not None)
    for line in left_out(splits.ignored):
        _log.warning("%s", line)
    if others := [path.name for path in splits.ignored if not what_to_do(path.suffix.lower())]:
        names = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
        _log.warning("left out %d files that are no images: %s", len(others), names)
    whole = splits.whole()
    if len(whole) > CHECK_ALL:
        return splits
    report = check_readable(whole, decoder)
    if not report:
        return splits
    drop_unreadable(whole, report)  # lists them; raises where a class is lost altogether
    bad, tables = [item.index for item in report.unreadable], splits.present()
    sound = np.split(~np.isin(np.arange(len(whole)), bad), np.cumsum([len(table) for table in tables.values()])[:-1])
    kept = {split: table.subset(np.flatnonzero(own)) for (split, table), own in zip(tables.items(), sound, strict=True)}
    if "train" in kept:
        lost = (splits.train.counts() > 0) & (kept["train"].counts() == 0)
        if lost.any():
            name = splits.train.class_names[int(lost.argmax())]
            raise DataError(f"no training image of {name!r} can be read; replace the files.")
    return Splits.of({split: table for split, table in kept.items() if len(table)}, splits.ignored)


@dataclass(frozen=True, eq=False)
class Support:
    """The labelled images of a fit: those to train on, to validate on and to test on, and where the last are from."""

    train: ImageTable
    val: ImageTable | None
    test: ImageTable | None
    test_name: str
    left_out: int
    """Training images that were not drawn."""


def draw_support(
    source: object,
    shots: int | None,
    seed: int,
    *,
    label_names: Sequence[str] | None = None,
    own_ids: bool = False,
    multi_label: bool = False,
    val: ImageTable | None = None,
    holdout: float | None = None,
    decoder: Decoder,
) -> Support:
    """Read a source and draw `shots` images per class from it (None: all), readable ones.

    val: replaces the source's validation images. holdout: as for `hold_out`, with all images checked first; None: no
    image is held out. Identical images in two classes, or in training and other images, are logged. Raises DataError as
    `read_images`.
    """
    name = "test split"
    if holdout is None:
        splits = read_source(source, label_names=label_names, own_ids=own_ids, multi_label=multi_label)
    else:
        splits = read_images(source, label_names=label_names, own_ids=own_ids, multi_label=multi_label, decoder=decoder)
        splits, name = hold_out(splits, holdout, seed, decoder)
    drawn = draw_readable(splits.train, shots, seed, splits.val if val is None else val, decoder)
    warn_identical({"train": drawn.train, "val": drawn.val, "test": splits.test}, decoder.digest)
    left_out = len(splits.train) - len(drawn.train)
    return Support(drawn.train, drawn.val, splits.test, name, left_out)


def draw_readable(table: ImageTable, shots: int | None, seed: int, val: ImageTable | None, decoder: Decoder) -> FewShot:
    """`sample_fewshot` of readable images: bad ones are listed in the log and replaced by another draw.

    `decoder` keeps the drawn images and forgets the rest of both tables. Raises DataError if a class is lost.
    """
    failed: list[Unreadable] = []
    while True:
        drawn = sample_fewshot(table, shots, seed, val=val)
        bad = check_readable(drawn.train, decoder)
        bad_val = None if drawn.val is None else check_readable(drawn.val, decoder)
        failed += [*bad.unreadable, *(bad_val.unreadable if bad_val is not None else ())]
        if not bad and not bad_val:
            if failed:
                seen = len(failed) + len(drawn.train) + (0 if drawn.val is None else len(drawn.val))
                _log.warning("%s; others were drawn in their place", DecodeReport(tuple(failed), seen))
            for whole, rows in ((table, drawn.train_indices), (val, drawn.val_indices)):
                if whole is not None and rows is not None:
                    decoder.forget(whole.images[row] for row in np.setdiff1d(np.arange(len(whole)), rows))
            return drawn
        table = _without(table, drawn.train_indices, bad)
        if val is not None and drawn.val_indices is not None and bad_val:
            val = _without(val, drawn.val_indices, bad_val)


def _without(table: ImageTable, rows: NDArray[np.int64], report: DecodeReport) -> ImageTable:
    """The table without the images that a report on its `rows` names. Raises DataError if a class is left empty."""
    found = tuple(replace(bad, index=int(rows[bad.index])) for bad in report.unreadable)
    return drop_unreadable(table, DecodeReport(found, report.checked), logged=False)


def hold_out(splits: Splits, part: float, seed: int, decoder: Decoder | None = None) -> tuple[Splits, str]:
    """The splits of `read_images` with test images, and the name of these: the test split, else `part` of each class.

    There are none if `part` is 0 or all classes have few images.
    """
    name = "test split"
    if splits.test is None and part:
        train, test = split_holdout(splits.train, part, seed)
        splits, name = replace(splits, train=train, test=test), f"{part:.0%} of the images, drawn by class"
    if splits.test is not None:
        splits = replace(splits, test=_readable(splits.test, splits, decoder))
    return splits, name


def choose_split(
    splits: Splits, split: str | None, source: object, decoder: Decoder | None = None
) -> tuple[ImageTable, str]:
    """The requested table and its name; by default the test images, or all images of a source without them."""
    present = splits.present()
    if split is None:
        split = "test" if "test" in present else "all"
    if split == "all":
        return _readable(splits.whole(), splits, decoder), "all"
    if split not in present:
        raise DataError(f"{source} has no {split} images; it has {', '.join(present)}. Leave out --split for all.")
    return _readable(present[split], splits, decoder), split


def _readable(table: ImageTable, splits: Splits, decoder: Decoder | None) -> ImageTable:
    """A table to measure on without unreadable images, which `read_images` has not removed from a large source."""
    if len(splits.whole()) <= CHECK_ALL:
        return table
    return drop_unreadable(table, check_readable(table, decoder))
