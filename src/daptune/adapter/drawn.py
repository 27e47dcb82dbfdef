"""The images that an adapter was trained on, drawn again from their folder by what its record says."""

from dataclasses import dataclass
from pathlib import Path

from daptune.adapter.record import AdapterRecord
from daptune.data.cache import Decoder
from daptune.data.fewshot import sample_fewshot
from daptune.data.heldout import CHECK_ALL, choose_split, draw_readable, hold_out, read_images
from daptune.data.table import ImageTable, Splits


@dataclass(frozen=True)
class HeldOut:
    """Images to measure on, and the training images if they are known to be the same."""

    test: ImageTable | None
    name: str
    train: ImageTable | None
    remark: str = ""


@dataclass(frozen=True)
class Again:
    """The splits of a fit and its training images, drawn again; `name` as `hold_out` returns it."""

    splits: Splits
    train: ImageTable
    name: str


def draw_again(record: AdapterRecord, splits: Splits, decoder: Decoder | None = None) -> Again | None:
    """Draw the training images again from the splits of `read_images`; None if they have another fingerprint."""
    if not len(splits.train):
        return None
    seed, part = record.seed or 0, record.data.get("holdout") or 0
    own, name = hold_out(splits, part, seed, decoder)
    drawn = sample_fewshot(own.train, record.shots, seed, val=own.val, logged=False).train  # the fit has told
    if drawn.fingerprint() != record.data.get("fingerprint") and len(splits.whole()) > CHECK_ALL:
        # of a large source, `fit` has read the drawn images alone and left out those that it could not read
        drawn = draw_readable(own.train, record.shots, seed, own.val, decoder or Decoder(0)).train
    return Again(own, drawn, name) if drawn.fingerprint() == record.data.get("fingerprint") else None


def held_out_images(record: AdapterRecord, folder: Path, decoder: Decoder | None = None) -> HeldOut:
    """The held-out and the training images of the recorded fit, sampled again from a folder.

    If the training images have another fingerprint, the test images are those of the folder, or all.
    """
    several = record.multi_label
    splits = read_images(folder, label_names=record.class_names, training=False, multi_label=several, decoder=decoder)
    called = folder.resolve().name
    if (again := draw_again(record, splits, decoder)) is not None:
        part, test, name = record.data.get("holdout"), again.splits.test, again.name
        if part and splits.test is None:
            name = f"{100 * part:.0f} % of {called}, held out of training"
        remark = "" if test is not None else "No images were held out, so nothing could be measured."
        return HeldOut(test, name, again.train, remark)
    test, name = choose_split(splits, None, folder, decoder)
    remark = f"The images of {called} are not those that the adapter was trained on, but may include some of them."
    return HeldOut(test, f"{name} of {called}", None, remark)
