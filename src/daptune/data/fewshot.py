"""Few-shot sampling as in CoOp, the hold-out set of sources without a test split, and folds."""

import logging
import random
import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from daptune.data.multi_label import draw_rows
from daptune.data.table import ImageTable
from daptune.errors import DataError

MOST_VAL_SHOTS = 4  # CoOp validates on min(shots, 4) images per class
FEWEST_TO_SPLIT = 5  # a class with fewer images keeps them all for training

_log = logging.getLogger("daptune")
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class FewShot:
    """The sampled tables, and their rows in the source tables."""

    train: ImageTable
    val: ImageTable | None
    train_indices: Indices
    val_indices: Indices | None


def sample_fewshot(
    table: ImageTable, shots: int | str | None, seed: int, *, val: ImageTable | None = None, logged: bool = True
) -> FewShot:
    """Sample `shots` images per class from table and min(shots, 4) from val; None, "all" or below 1: all images.

    The images are those of CoOp's code for the same lists and seed: `DatasetBase.generate_fewshot_dataset` of
    KaiyangZhou/Dassl.pytorch (dassl/data/datasets/base_dataset.py, repeat=False), called on train and then on val by
    KaiyangZhou/CoOp (datasets/oxford_pets.py) after `random.seed(seed)`: classes in order of first appearance,
    `random.sample` in each, all images of smaller classes without a draw, val from the same generator. Uses its own
    generator, with the same numbers as Python's global one after random.seed(seed).

    Of images with any number of labels, at least `shots` show each class, and as many none (`multi_label.draw_rows`).
    Classes with fewer images are listed in the log, if `logged`.
    """
    if isinstance(shots, str) and shots != "all":
        raise DataError(f"expected shots as a whole number or 'all', found {shots!r}.")
    if shots is None or isinstance(shots, str) or shots < 1:
        every = np.arange(len(table), dtype=np.int64)
        return FewShot(table, val, every, None if val is None else np.arange(len(val), dtype=np.int64))
    stream = random.Random(int(seed))  # numpy integers are not accepted
    chosen = _draw(table, shots, stream)
    short = {name: int(count) for name, count in zip(table.class_names, table.counts(), strict=True) if count < shots}
    if short and logged:
        listed = ", ".join(f"{name} ({count})" for name, count in list(short.items())[:5])
        more = f" and {len(short) - 5} more" if len(short) > 5 else ""
        _log.warning("fewer than %d images, all used: %s%s", shots, listed, more)
    if val is None:
        return FewShot(table.subset(chosen), None, chosen, None)
    val_chosen = _draw(val, min(shots, MOST_VAL_SHOTS), stream)
    return FewShot(table.subset(chosen), val.subset(val_chosen), chosen, val_chosen)


def _draw(table: ImageTable, shots: int, stream: random.Random) -> Indices:
    if table.multi_label:
        groups = len(table.class_names) + 1
        return draw_rows(table, [shots] * groups, [0] * groups, stream)
    rows: dict[int, list[int]] = {}  # a dict keeps the order of first appearance
    for row, label in enumerate(table.labels.tolist()):
        rows.setdefault(label, []).append(row)
    drawn: list[int] = []
    for members in rows.values():
        drawn.extend(stream.sample(members, shots) if len(members) >= shots else members)
    return np.array(drawn, dtype=np.int64)


def split_holdout(table: ImageTable, fraction: float = 0.2, seed: int = 0) -> tuple[ImageTable, ImageTable | None]:
    """(rest, held out): per class a rounded `fraction` of its images, at least 1, at most all but one.

    Classes with fewer than 5 images keep all for training; held out is None if all classes do. Both tables keep the
    order; the draw is independent of the few-shot sample of the same seed.
    """
    if not 0 < fraction < 1:
        raise DataError(f"expected a fraction between 0 and 1 to hold out, found {fraction}.")
    stream = random.Random(f"daptune hold-out {seed}")
    if table.multi_label:
        return _split_several(table, fraction, stream)
    held: list[int] = []
    for label in range(len(table.class_names)):
        members = np.flatnonzero(table.labels == label).tolist()
        if len(members) >= FEWEST_TO_SPLIT:
            held.extend(stream.sample(members, min(max(round(len(members) * fraction), 1), len(members) - 1)))
    if not held:
        return table, None
    inside = np.isin(np.arange(len(table)), held)
    return table.subset(np.flatnonzero(~inside)), table.subset(np.flatnonzero(inside))


def _split_several(table: ImageTable, fraction: float, stream: random.Random) -> tuple[ImageTable, ImageTable | None]:
    """`split_holdout` of images with any number of labels; those of a small class all stay for training."""
    counts = [*table.counts().tolist(), int((~table.labels.any(axis=1)).sum())]
    split = [count >= FEWEST_TO_SPLIT for count in counts]
    wanted = [
        min(max(round(count * fraction), 1), count - 1) if enough else 0
        for count, enough in zip(counts, split, strict=True)
    ]
    held = draw_rows(
        table, wanted, [1 if enough else count for count, enough in zip(counts, split, strict=True)], stream
    )
    if not len(held):
        return table, None
    return table.subset(np.setdiff1d(np.arange(len(table)), held)), table.subset(held)


def stratified_folds(table: ImageTable, folds: int, seed: int) -> list[tuple[Indices, Indices]]:
    """Rows to train on and rows held out, `folds` times: scikit-learn's StratifiedKFold of the shuffled rows.

    An image that is alone in its class is never held out, so that every class has images to train on. Images with any
    number of labels are divided class by class, the smallest first (`multi_label.draw_rows`).
    """
    if table.multi_label:
        return _folds_of_several(table, folds, random.Random(f"daptune folds {seed}"))
    from sklearn.model_selection import StratifiedKFold

    held_once = np.flatnonzero(can_be_held(table))
    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
    every = np.arange(len(table))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)  # not in every fold: no harm
        parts = [held_once[held] for _, held in splitter.split(held_once, table.labels[held_once])]
    return [(np.setdiff1d(every, held), held) for held in parts]


def can_be_held(table: ImageTable) -> npt.NDArray[np.bool_]:
    """Whether each image can be left out of a training, (n,): none of its classes is without another image."""
    enough = table.counts() > 1
    if not table.multi_label:
        return enough[table.labels]
    return ~np.asarray((table.labels & ~enough).any(axis=1))


def _folds_of_several(table: ImageTable, folds: int, stream: random.Random) -> list[tuple[Indices, Indices]]:
    """`stratified_folds` of images with any number of labels; there are fewer folds if there are fewer images."""
    left, parts, counts = np.flatnonzero(can_be_held(table)), [], table.counts()
    for ahead in range(folds, 0, -1):
        part = table.subset(left)
        groups = [*part.counts().tolist(), int((~part.labels.any(axis=1)).sum())]
        held = left[draw_rows(part, [round(count / ahead) for count in groups], [0] * len(groups), stream)]
        left = np.setdiff1d(left, held)
        for label in np.flatnonzero(counts):  # labels that come together may leave a class none to train on
            own = np.flatnonzero(table.labels[held, label])
            held = np.delete(held, own[:1]) if len(own) == counts[label] else held
        if len(held):
            parts.append(held)
    return [(np.setdiff1d(np.arange(len(table)), held), held) for held in parts]
