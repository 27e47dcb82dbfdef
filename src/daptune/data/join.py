"""Join several tasks into one table with concatenated classes."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import reduce
from operator import add

from daptune.data.table import ImageTable
from daptune.errors import DataError
from daptune.names import check_class_names, name_key


@dataclass(frozen=True, eq=False)
class JoinedTables:
    """The joined table, and the number of classes per task, in order: the `tasks` option of `mvlpt`."""

    table: ImageTable
    tasks: tuple[int, ...]


def join_tables(tables: Mapping[str, ImageTable], *, qualify: bool = False) -> JoinedTables:
    """Join tables, given by task name, in order: labels of a task follow those of the tasks before.

    Raises DataError for images with several labels, and if two tasks share a class name (ignoring case, "_" and Unicode
    form). With `qualify` such a class is named with its task instead, "panda (animals)", also in prompts.
    """
    if not tables:
        raise DataError("expected tables to join, found none; give a dict of task name and table.")
    if several := [task for task, table in tables.items() if table.multi_label]:
        raise DataError(f"the images of {several[0]} have several labels; join tables with one label an image.")
    owner: dict[str, tuple[str, str]] = {}
    shared: dict[str, str] = {}
    for task, table in tables.items():
        for name in table.class_names:
            first, other = owner.setdefault(name_key(name), (task, name))
            if (first, other) != (task, name):
                shared.setdefault(name_key(name), f"{other!r} of {first} and {name!r} of {task}")
    if shared and not qualify:
        more = f" (and {len(shared) - 1} more)" if len(shared) > 1 else ""
        raise DataError(
            f"class {next(iter(shared.values()))} read the same to CLIP{more}: rename one, leave one out, or use "
            "qualify=True, which adds the task to their names."
        )
    names = {
        task: [f"{name} ({task})" if name_key(name) in shared else name for name in table.class_names]
        for task, table in tables.items()
    }
    every = check_class_names([name for own in names.values() for name in own])
    moved, offset = [], 0
    for table in tables.values():
        moved.append(replace(table, labels=table.labels + offset, class_names=every))
        offset += len(table.class_names)
    return JoinedTables(reduce(add, moved), tuple(len(own) for own in names.values()))
