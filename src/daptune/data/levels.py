"""Whether the sub-folders of a folder are its classes, or the folder stands one level too high.

Images may lie deeper in a class: below one level of the same name everywhere (`cats/images/`), or below sub-folders
of each class's own (`cats/persian/`, `dogs/pug/`), which a line in the log tells. Sub-folders of several names that
classes share (setA/cat, setA/dog, setB/cat, setB/dog) are the classes themselves, and a class that is a data set of its
own (splits, a split file, a published archive) is none: both are refused with the folder that was probably meant.
"""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Set
from pathlib import Path

from daptune.data.check import first_few
from daptune.data.table import split_kind
from daptune.errors import DataError

_log = logging.getLogger("daptune")


def check_levels(folder: Path, deep: Mapping[str, Set[str]], classes: int, is_data_set: Callable[[Path], bool]) -> None:
    """Raise DataError where `folder` is one level too high.

    deep: of the classes without images directly in them, the names of the sub-folders that hold some; classes: how
    many there are in all.
    """
    sets = [name for name in deep if is_data_set(folder / name)]
    if sets:
        noun = "is a data set of its own" if len(sets) == 1 else "are data sets of their own"
        raise DataError(
            f"{folder}: {first_few([f'{name}/' for name in sets], noun='more')} {noun}, no class; "
            f"give one of them, such as {folder / sets[0]}."
        )
    counts = Counter(name for names in deep.values() for name in names)
    shared = sorted(name for name, number in counts.items() if number > 1)
    if len(shared) > 1:
        outer = [name for name, names in deep.items() if names & set(shared)]
        above = f"{folder}: {first_few([f'{name}/' for name in outer], noun='more')} hold sub-folders of the same names"
        if all(map(split_kind, shared)):
            raise DataError(
                f"{above} ({', '.join(shared)}); put the splits above the classes: {shared[0]}/{outer[0]}/."
            )
        raise DataError(
            f"{above} ({first_few(shared, noun='more')}), which look like the classes; give {folder / outer[0]}. "
            f"If {outer[0]} is a class, put its images directly into its folder."
        )
    if len(deep) == classes and any(len(names) > 1 for names in deep.values()):
        inner = sorted(counts)
        _log.warning(
            "%s: the classes are %s; their %d sub-folders (%s) are parts of them. If these are the classes, give the "
            "folder above them.",
            folder, first_few(list(deep)), len(inner), first_few(inner, noun="more"),
        )  # fmt: skip
