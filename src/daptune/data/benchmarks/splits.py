"""Splits as the official code draws them where the authors' split file is not there.

KaiyangZhou/CoOp datasets/dtd.py (`read_and_split_data`), datasets/oxford_flowers.py (`read_data`) and
datasets/oxford_pets.py (`split_trainval`) shuffle with Python's global generator, which train.py has seeded with the
seed of the run just before. So the first run decides, and 1 is the first of the seeds that every script runs: that is
ours, in a stream of its own. The result is theirs image for image where the order of the images comes from a file
(Pets, Cars, Flowers, SUN397, UCF101); where it comes from a folder, theirs is the order in which the file system names
the files, which no other machine repeats, and ours is sorted.
"""

import random
from collections.abc import Iterable, Mapping, Sequence

from daptune.data.table import SPLITS
from daptune.data.zhou import Parts, Row
from daptune.errors import DataError

SEED = 1


def split_thirds(groups: Mapping[tuple[int, str], Sequence[str]]) -> Parts:
    """Of each class 50 % train, 20 % val and the rest test. groups: (label, class name) -> its images, in order."""
    stream = random.Random(SEED)
    parts: Parts = {part: [] for part in SPLITS}
    for (label, name), images in groups.items():
        shuffled = list(images)
        stream.shuffle(shuffled)
        train, val = round(len(images) * 0.5), round(len(images) * 0.2)
        if not 0 < train < train + val < len(images):
            raise DataError(f"class {name!r} has {len(images)} images, too few for train, val and test; add the rest.")
        cuts = {"train": shuffled[:train], "val": shuffled[train : train + val], "test": shuffled[train + val :]}
        for part, chosen in cuts.items():
            parts[part] += [(image, label, name) for image in chosen]
    return parts


def split_trainval(rows: Iterable[Row]) -> tuple[list[Row], list[Row]]:
    """(train, val): of each class, in the order in which the rows first show them, 20 % val."""
    stream = random.Random(SEED)
    groups: dict[int, list[Row]] = {}
    for row in rows:
        groups.setdefault(row[1], []).append(row)
    train: list[Row] = []
    val: list[Row] = []
    for members in groups.values():
        count = round(len(members) * 0.2)
        if not count:
            raise DataError(f"class {members[0][2]!r} has {len(members)} images, too few for train and val.")
        stream.shuffle(members)  # the draws depend on the length alone, so rows may be shuffled in place of indices
        val += members[:count]
        train += members[count:]
    return train, val
