"""Which images are learned from and which are measured on: read, those that cannot be decoded left out, and split."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from daptune.data.cache import Decoder
from daptune.data.check import DecodeReport, check_readable, drop_unreadable
from daptune.data.fewshot import FewShot, sample_fewshot, split_holdout
from daptune.data.sources import read_source
from daptune.data.table import ImageTable, Splits
from daptune.errors import DataError

CHECK_ALL = 5_000
"""Up to so many images all are decoded at the start; of more, only those that are used, when they are."""

_log = logging.getLogger("daptune")


@dataclass(frozen=True)
class HeldOut:
    """What to measure on, and the images that were learned from where they are known to be the same."""

    test: ImageTable | None
    name: str
    train: ImageTable | None
    remark: str = ""


def read_images(
    source: object,
    *,
    label_names: Sequence[str] | None = None,
    training: bool = True,
    decoder: Decoder | None = None,
) -> Splits:
    """Read a source as `read_source` and leave out, with one list in the log, what cannot be decoded.

    Raises DataError as `read_source`, and where a class is left without any image to learn from.
    """
    splits = read_source(source, label_names=label_names, training=training)
    if splits.ignored:
        names = ", ".join(path.name for path in splits.ignored[:3]) + (", ..." if len(splits.ignored) > 3 else "")
        _log.warning("left out %d files that are no images: %s", len(splits.ignored), names)
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


def draw_readable(table: ImageTable, shots: int | None, seed: int, val: ImageTable | None, decoder: Decoder) -> FewShot:
    """`sample_fewshot` of images that can be read: bad ones are left out, with a list in the log, and drawn anew.

    `decoder` keeps those that were drawn, and forgets the rest of both tables. Raises DataError where a class is lost.
    """
    while True:
        drawn = sample_fewshot(table, shots, seed, val=val)
        bad = check_readable(drawn.train, decoder)
        bad_val = None if drawn.val is None else check_readable(drawn.val, decoder)
        if not bad and not bad_val:
            for whole, rows in ((table, drawn.train_indices), (val, drawn.val_indices)):
                if whole is not None and rows is not None:
                    decoder.forget(whole.images[row] for row in np.setdiff1d(np.arange(len(whole)), rows))
            return drawn
        table = _without(table, drawn.train_indices, bad)
        if val is not None and drawn.val_indices is not None and bad_val is not None:
            val = _without(val, drawn.val_indices, bad_val)


def _without(table: ImageTable, rows: NDArray[np.int64], report: DecodeReport) -> ImageTable:
    """The table without the images that a report on its `rows` names; DataError if a class is left empty."""
    found = tuple(replace(bad, index=int(rows[bad.index])) for bad in report.unreadable)
    return drop_unreadable(table, DecodeReport(found, report.checked))


def hold_out(splits: Splits, part: float, seed: int, decoder: Decoder | None = None) -> tuple[Splits, str]:
    """What `read_images` gave with test images, and what these are called: those there are, else `part` of each class.

    There may be none all the same: with `part` 0, or of classes with few images.
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
    """The table that is asked for and its name; by default the test images, or all where there are no splits."""
    present = splits.present()
    if split is None:
        split = "test" if "test" in present else "all"
    if split == "all":
        return _readable(splits.whole(), splits, decoder), "all"
    if split not in present:
        raise DataError(f"{source} has no {split} images; it has {', '.join(present)}. Leave out --split for all.")
    return _readable(present[split], splits, decoder), split


def _readable(table: ImageTable, splits: Splits, decoder: Decoder | None) -> ImageTable:
    """A table to measure on, without what cannot be read where `read_images` did not look at all images."""
    if len(splits.whole()) <= CHECK_ALL:
        return table
    return drop_unreadable(table, check_readable(table, decoder))


def images_again(
    folder: Path,
    class_names: Sequence[str],
    *,
    shots: int | None,
    seed: int,
    part: float | None,
    fingerprint: str | None,
    decoder: Decoder | None = None,
) -> HeldOut:
    """The images of a folder as a fit used them: those it held out (`part` of them), and those it learned from.

    Where these have another fingerprint, its test images alone, or all, are measured on.
    """
    splits = read_images(folder, label_names=class_names, training=False, decoder=decoder)
    called = folder.resolve().name
    if len(splits.train):
        own = hold_out(splits, part or 0, seed, decoder)[0]
        drawn = sample_fewshot(own.train, shots, seed, val=own.val).train
        if drawn.fingerprint() == fingerprint:
            drawn_name = f"{100 * (part or 0):.0f} % of {called}, held out of training"
            name = "test split" if splits.test is not None or not part else drawn_name
            remark = "" if own.test is not None else "No images were held out, so that nothing could be measured."
            return HeldOut(own.test, name, drawn, remark)
    test, name = choose_split(splits, None, folder, decoder)
    remark = f"The images of {called} are not those that it was made from; some may be among them all the same."
    return HeldOut(test, f"{name} of {called}", None, remark)
