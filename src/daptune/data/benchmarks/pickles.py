"""Official few-shot draws, `split_fewshot/shot_<k>-seed_<s>.pkl`, read without running what a pickle may ask for.

KaiyangZhou/CoOp writes {"train": [Datum, ...], "val": [Datum, ...]} (ImageNet no val; its `preprocessed.pkl` a test),
Datum being a class of Dassl with the attributes _impath, _label, _domain, _classname. Unpickling runs whatever
function a file names; here it may name that class alone, and gets an empty one for it.
"""

import io
import pickle
from pathlib import Path, PurePosixPath
from typing import Any

from daptune.data.benchmarks.reading import tables_of
from daptune.data.table import SPLITS, Splits
from daptune.data.zhou import Parts, Row
from daptune.errors import DataError
from daptune.regular import read_regular

_LARGEST = 1 << 30  # bytes; ImageNet's whole list is about a tenth of that


class _Datum:
    _impath: str
    _label: int
    _classname: str


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: bytes, path: Path) -> None:
        super().__init__(io.BytesIO(data))
        self._path = path
        # of its own for each file: a pickle can set attributes of what it is given, and must not reach the next file
        self.datum = type("Datum", (_Datum,), {})

    def find_class(self, module: str, name: str) -> Any:
        if name == "Datum" and module.partition(".")[0] in ("dassl", "Dassl", "datasets"):
            return self.datum
        raise DataError(f"{self._path} asks to run {module}.{name}, which no few-shot split needs: it was not opened.")


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
    try:
        if path.stat().st_size > _LARGEST:
            raise DataError(f"{path}: {expected}, found a file too large for that.")
        unpickler = _Unpickler(read_regular(path), path)
        content = unpickler.load()
        parts = {part: content[part] for part in SPLITS if content.get(part)}
        rows = {part: [_row(item, unpickler.datum) for item in items] for part, items in parts.items()}
    except (DataError, OSError):
        raise
    except Exception as error:  # a crafted or damaged pickle can fail in any way; none of them has run code
        raise DataError(f"{path}: {expected}, but it cannot be read ({type(error).__name__}: {error}).") from None
    if not rows:
        raise DataError(f"{path}: {expected}, found no images.")
    return rows


def _row(item: object, kind: type[_Datum]) -> Row:
    if not isinstance(item, kind):
        raise TypeError(f"found {type(item).__name__} in place of a Datum")
    file, label, name = item._impath, item._label, item._classname
    if not isinstance(file, str) or not isinstance(label, int) or not isinstance(name, str):
        raise TypeError("a Datum holds something else than path, label and name")
    if ".." in PurePosixPath(file).parts:
        raise ValueError(f"{file!r} leads out of its folder")
    return file, label, name


def _depth(path: Path, folder: Path, file: str) -> int:
    """How many parts to cut off the front of the paths so that this one, the first, is found below the folder."""
    parts = PurePosixPath(file).parts
    for cut in range(len(parts)):
        if folder.joinpath(*parts[cut:]).is_file() and parts[cut] != "/":
            return cut
    raise DataError(f"{path}: no end of {file} is a file below {folder}; put it into split_fewshot/ of the data set.")
