"""Official few-shot draws, `split_fewshot/shot_<k>-seed_<s>.pkl`, read without running what a pickle may ask for.

KaiyangZhou/CoOp writes {"train": [Datum, ...], "val": [Datum, ...]} (ImageNet no val; its `preprocessed.pkl` a test),
Datum being a class of Dassl with the attributes _impath, _label, _domain, _classname. Unpickling runs whatever
function a file names; here it may name that class alone, and gets an empty one for it (`daptune.opcodes`).
"""

from pathlib import Path, PurePosixPath
from typing import Any

from daptune.data.benchmarks.reading import tables_of
from daptune.data.table import SPLITS, Splits
from daptune.data.zhou import Parts, Row
from daptune.errors import DataError, foreign
from daptune.foreign import LARGEST_WHOLE, read_bytes
from daptune.opcodes import Machine

_LARGEST = 256 << 20  # bytes; ImageNet's whole list has less than half


class _Datum:
    def __init__(self) -> None:
        self.attributes: dict[str, Any] = {}


def read_pickle(path: Path, image_root: str | Path | None = None) -> Splits:
    """The tables of an official pickle, in its order.

    Its paths begin with the authors' data folder. They are taken to lie in the data set's folder that holds
    split_fewshot/, or in image_root: as many folders as need be are cut off their front. Classes are numbered in the
    order of their labels. Raises DataError for a pickle of anything else, or whose images are not here.
    """
    parts = _load(path)
    folder = Path(image_root).expanduser() if image_root is not None else path.absolute().parent.parent
    cut = _depth(path, folder, next(file for rows in parts.values() for file, _, _ in rows))
    moved = {
        part: [("/".join(PurePosixPath(file).parts[cut:]).lstrip("/"), label, name) for file, label, name in rows]
        for part, rows in parts.items()
    }
    return tables_of(moved, folder)


def _load(path: Path) -> Parts:
    expected = 'expected {"train": [Datum, ...], "val": [Datum, ...]} of CoOp\'s split_fewshot/'

    def find(module: str, name: str) -> Any:
        if name == "Datum" and module.partition(".")[0] in ("dassl", "Dassl", "datasets"):
            return _Datum
        raise DataError(f"{path} asks to run {module}.{name}, which no few-shot split needs: it was not opened.")

    with foreign(lambda why: DataError(f"{path}: {expected}, but it cannot be read ({why}).")):
        content = Machine(read_bytes(path, _LARGEST), find, _no_storage, _set_attributes).load()
        parts = {part: content[part] for part in SPLITS if content.get(part)}
        rows = {part: [_row(item) for item in items] for part, items in parts.items()}
    if not rows:
        raise DataError(f"{path}: {expected}, found no images.")
    return rows


def _no_storage(pid: Any) -> Any:
    raise ValueError("it refers to something outside")


def _set_attributes(target: Any, state: Any) -> None:
    if isinstance(target, _Datum) and isinstance(state, dict):
        target.attributes = state


def _row(item: object) -> Row:
    if not isinstance(item, _Datum):
        raise ValueError(f"found {type(item).__name__} in place of a Datum")
    file, label, name = (item.attributes.get(f"_{part}") for part in ("impath", "label", "classname"))
    if not isinstance(file, str) or type(label) is not int or not isinstance(name, str):
        raise ValueError("a Datum holds something else than path, label and name")
    if ".." in PurePosixPath(file).parts:
        raise ValueError(f"{file!r} leads out of its folder")
    if abs(label) > LARGEST_WHOLE:
        raise ValueError("a label has more than 64 bits")
    return file, label, name


def _depth(path: Path, folder: Path, file: str) -> int:
    """How many parts to cut off the front of the paths so that this one, the first, is found below the folder."""
    parts = PurePosixPath(file).parts
    for cut in range(len(parts)):
        if folder.joinpath(*parts[cut:]).is_file() and parts[cut] != "/":
            return cut
    raise DataError(f"{path}: no end of {file} is a file below {folder}; put it into split_fewshot/ of the data set.")
