"""Tensors described by a pickle, without running anything that the pickle asks for.

PyTorch writes a zip with a pickle (`data.pkl`) and the raw storages (`data/0`, `data/1`, ...); before 1.6 it wrote the
pickles and then the storages one behind the other (torch/serialization.py, `_legacy_save`). `daptune.opcodes` reads the
pickle into containers, empty nodes for whatever objects the reader says, and descriptions of tensors. Their bytes are
then mapped from the file; no tensor has more of them than its storage, which has as many as the file holds.
"""

import math
import mmap
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...errors import BackboneError, foreign
from ...foreign import megabytes, open_zip
from ...opcodes import Machine

_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
LARGEST_PICKLE = 64 << 20  # bytes; that of the largest CLIP is about a megabyte
MOST_DIMENSIONS = 8
SHARED = 4
"""All tensors together have at most so many times the bytes of their storages: some share one, as tied weights do."""
_FREE = 1 << 20
_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_SIZE = 8  # bytes of the number in front of a storage of the older form
_CONTAINERS = {("collections", "OrderedDict"), ("collections", "defaultdict"), ("builtins", "dict")}


class Node:
    """An object of the archive: its attributes, nothing of its class."""

    def __init__(self, *_: object) -> None:
        """Whatever its class would have been made from is left aside."""
        self.attributes: dict[str, Any] = {}


class Storage(NamedTuple):
    """One run of raw numbers in the file."""

    key: str
    dtype: torch.dtype
    elements: int


class View(NamedTuple):
    """A tensor: where it lies in its storage."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def _view(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> View:
    """ValueError unless every element lies in the storage, and there are no more of them than it has."""
    numbers = (offset, *size, *stride)
    if not isinstance(storage, Storage) or not all(type(n) is int and 0 <= n < 2**62 for n in numbers):
        raise ValueError("a tensor is described by something else than numbers")
    if len(size) != len(stride) or len(size) > MOST_DIMENSIONS:
        raise ValueError(f"a tensor has {len(size)} dimensions and {len(stride)} strides")
    elements = math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if elements and (elements > storage.elements or last >= storage.elements):
        raise ValueError(f"a tensor of shape {tuple(size)} does not fit its storage of {storage.elements} numbers")
    return View(storage, offset, tuple(size), tuple(stride))


def _storage(pid: Any) -> Storage:
    _, dtype, key, _, count, *more = pid
    if not isinstance(dtype, torch.dtype) or type(count) is not int or count < 0 or any(more):
        raise ValueError("a storage is described by something else than its type and size")
    return Storage(str(key), dtype, count)


def _set_attributes(target: Any, state: Any) -> None:
    if isinstance(target, Node) and isinstance(state, dict):
        target.attributes = state


def _first(value: Any, *_: Any) -> Any:
    return value


def _empty(*_: Any) -> dict[Any, Any]:
    return {}


_KNOWN: dict[tuple[str, str], Any] = {
    **{place: _empty for place in _CONTAINERS},
    **{("torch", name): dtype for name, dtype in _STORAGES.items()},
    ("torch._utils", "_rebuild_tensor"): _view,
    ("torch._utils", "_rebuild_tensor_v2"): _view,
    ("torch._utils", "_rebuild_parameter"): _first,
    ("torch._utils", "_rebuild_parameter_with_state"): _first,
    ("torch.jit._pickle", "restore_type_tag"): _first,
    **{("torch.jit._pickle", f"build_{kind}list"): _first for kind in ("int", "double", "bool", "tensor")},
    ("torch", "Size"): _first,
    ("torch", "device"): _first,
    **{("torch", str(dtype).partition(".")[2]): str(dtype) for dtype in _STORAGES.values()},
}


def read_archive(
    path: Path, is_node: Callable[[str, str], bool], advice: str, views_of: Callable[[Any], Mapping[str, View]]
) -> tuple[dict[str, Tensor], Any]:
    """The tensors that `views_of` finds in what a file of PyTorch describes, and that description.

    They share the file's memory: copy what is kept. Raises BackboneError for a file that asks for more than tensors and
    what `is_node` takes, in a message that ends in `advice`, or is damaged.
    """

    def find(module: str, name: str) -> Any:
        if (module, name) in _KNOWN:
            return _KNOWN[module, name]
        if is_node(module, name):
            return Node
        raise BackboneError(f"{path} asks to run {module}.{name}, {advice}")

    def machine(data: bytes | memoryview, place: int = 0) -> Machine:
        return Machine(data, find, _storage, _set_attributes, place)

    damaged = "{} is no checkpoint, or truncated or damaged ({}); fetch it again."
    with foreign(lambda why: BackboneError(damaged.format(path, why))), path.open("rb") as file:
        whole = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        if whole[:2] == b"PK":
            with open_zip(file) as archive:
                place = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
                if (size := archive.getinfo(place).file_size) > LARGEST_PICKLE:
                    raise ValueError(f"its description has {megabytes(size)}, more than any CLIP's")
                content = machine(archive.read(place)).load()
                views = views_of(content)
                _check_total(views)
                places = _zipped(archive, whole, place.removesuffix("data.pkl") + "data/", views)
        else:
            content, places = _in_turn(machine, whole)
            views = views_of(content)
            _check_total(views)
        return {name: _tensor(view, whole, places) for name, view in views.items()}, content


def _check_total(views: Mapping[str, View]) -> None:
    storages = {view.storage for view in views.values()}
    held = sum(store.elements * store.dtype.itemsize for store in storages)
    wanted = sum(math.prod(view.size) * view.storage.dtype.itemsize for view in views.values())
    if wanted > SHARED * held + _FREE:
        raise ValueError(f"its tensors have {megabytes(wanted)} and its storages {megabytes(held)}")


def _zipped(archive: zipfile.ZipFile, whole: mmap.mmap, folder: str, views: Mapping[str, View]) -> dict[str, int]:
    """Where each storage of a zip begins in the file; its size and checksum are compared with what the zip says."""
    order = folder.removesuffix("data/") + "byteorder"
    if order in archive.namelist() and archive.read(order) != b"little":
        raise ValueError("its numbers are in the other byte order")
    places = {}
    for store in {view.storage.key: view.storage for view in views.values()}.values():
        info = archive.getinfo(folder + store.key)
        size = store.elements * store.dtype.itemsize
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != size:
            raise ValueError(f"storage {store.key} has {info.file_size} bytes for {store.elements} of {store.dtype}")
        head = whole[info.header_offset : info.header_offset + 30]
        start = info.header_offset + 30 + int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little")
        with memoryview(whole) as content, content[start : start + size] as part:
            if len(part) != size or zlib.crc32(part) != info.CRC:
                raise ValueError(f"the checksum of storage {store.key} does not match")
        places[store.key] = start
    return places


def _in_turn(machine: Callable[[memoryview, int], Machine], whole: mmap.mmap) -> tuple[Any, dict[str, int]]:
    """What a file of the older form describes, and where each storage begins."""
    parts: list[Any] = []
    place = 0
    pickles = bytes(whole[: LARGEST_PICKLE + 1])
    for _ in range(5):
        reader = machine(memoryview(pickles), place)
        parts.append(reader.load())
        place = reader.place
        if parts[0] != _MAGIC or parts[1:2] not in ([], [_PROTOCOL]):
            raise ValueError("it does not begin as PyTorch's files do")
    system, content, keys = parts[2:]
    if system.get("little_endian") is not True:
        raise ValueError("its numbers are in the other byte order")
    widths = _widths(content)
    places = {}
    for key in keys:
        elements = int.from_bytes(whole[place : place + _SIZE], "little")
        width = widths.get(key)
        if width is None or elements != width[1]:
            raise ValueError(f"storage {str(key)[:40]} has {elements} numbers, not those of its tensors")
        places[key] = place + _SIZE
        place += _SIZE + elements * width[0]
        if place > len(whole):
            raise ValueError("it is truncated")
    return content, places


def _widths(content: Any) -> dict[str, tuple[int, int]]:
    """Key -> bytes of a number, and how many, of all storages that a description mentions, at any depth."""
    found: dict[str, tuple[int, int]] = {}
    waiting, seen = [content], set[int]()
    while waiting:
        value = waiting.pop()
        if isinstance(value, View):
            found[value.storage.key] = value.storage.dtype.itemsize, value.storage.elements
        elif isinstance(value, dict | list | tuple | Node) and id(value) not in seen:
            seen.add(id(value))
            inner = value.attributes if isinstance(value, Node) else value
            waiting += inner.values() if isinstance(inner, dict) else inner
    return found


def _tensor(view: View, whole: mmap.mmap, places: Mapping[str, int]) -> Tensor:
    store = view.storage
    if not store.elements:
        return torch.empty(view.size, dtype=store.dtype)
    if not math.prod(view.size):
        raise ValueError("a tensor has no numbers")
    start = places[store.key]
    if start % store.dtype.itemsize:
        whole_storage = bytearray(whole[start : start + store.elements * store.dtype.itemsize])
        flat = torch.frombuffer(whole_storage, dtype=store.dtype)
    else:
        flat = torch.frombuffer(whole, dtype=store.dtype, count=store.elements, offset=start)
    return flat.as_strided(view.size, view.stride, view.offset)
