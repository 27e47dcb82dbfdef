"""Several tasks as one: their classes one behind the other in a single list, their images in a single table."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import reduce
from operator import add

from daptune.data.table import ImageTable
from daptune.errors import DataError
from daptune.names import check_class_names, name_key


@dataclass(frozen=True, eq=False)
class JoinedTables:
    """The joined table, and how many classes each task has, in the order of the classes: the `tasks` of `mvlpt`."""

    table: ImageTable
    tasks: tuple[int, ...]


def join_tables(tables: Mapping[str, ImageTable], *, qualify: bool = False) -> JoinedTables:
    """Tables by the name of their task, in that order: labels of a task count on from the classes before it.

    A class name that two tasks have (case, "_" and Unicode form do not count) is a DataError that names both. With
    `qualify` such a class is named with its task, "panda (animals)", and CLIP reads that too.
    """
    if not tables:
        raise DataError("expected tables to join, found none; give a dict of task name and table.")
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
            f"class {next(iter(shared.values()))} read the same to CLIP{more}: rename one, leave one out, or give "
            "qualify=True, which names them with their tasks."
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
