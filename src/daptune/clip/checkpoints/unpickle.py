"""Tensors described by a pickle within a zip file, without running anything that the pickle asks for.

PyTorch writes a zip with a pickle (`data.pkl`) and the raw storages (`data/0`, `data/1`, ...). Plain unpickling may
call anything; here it may build containers, empty nodes for whatever objects the reader says, and descriptions of
tensors, whose bytes are then read from the zip.
"""

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...errors import BackboneError

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


class Node:
    """An object of the archive: its attributes, nothing of its class."""

    attributes: dict[str, Any]

    def __new__(cls, *_: object, **__: object) -> "Node":
        """Whatever its class would have been made from is left aside."""
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None:
        self.attributes = dict(state) if isinstance(state, dict) else {}

    def __setitem__(self, key: object, value: object) -> None:
        """What a container of its own kind holds is left aside as well."""

    def append(self, value: object) -> None:
        """The same for a list of its own kind."""


class Storage(NamedTuple):
    """One file of raw numbers in the zip."""

    key: str
    dtype: torch.dtype
    elements: int


class View(NamedTuple):
    """A tensor: where it lies in its storage."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class TensorUnpickler(pickle.Unpickler):
    """Knows the handful of names that describe tensors, and makes empty nodes where `is_node(module, name)` says so.

    It refuses every other name by a BackboneError that ends in `advice`.
    """

    def __init__(self, data: bytes, path: Path, is_node: Callable[[str, str], bool], advice: str) -> None:
        super().__init__(io.BytesIO(data))
        self._path, self._is_node, self._advice = path, is_node, advice
        # created for each file: a pickle can set attributes on what it is given, and these must not reach the next file
        self.node = type("Node", (Node,), {})
        self._known: dict[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): lambda store, offset, size, stride, *_: View(
                store, int(offset), tuple(map(int, size)), tuple(map(int, stride))
            ),
            ("torch._utils", "_rebuild_parameter"): lambda view, *_: view,
            ("torch.jit._pickle", "restore_type_tag"): lambda value, _: value,
            **{
                ("torch.jit._pickle", f"build_{kind}list"): lambda value: value
                for kind in ("int", "double", "bool", "tensor")
            },
        }

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a name; BackboneError for one that is not known."""
        if module == "torch" and name in _STORAGES:
            return name
        if (module, name) in self._known:
            return self._known[module, name]
        if self._is_node(module, name):
            return self.node
        raise BackboneError(f"{self._path} asks to run {module}.{name}, {self._advice}")

    def persistent_load(self, pid: Any) -> Storage:
        """The storage that a tensor lies in."""
        _, kind, key, _, count = pid
        return Storage(str(key), _STORAGES[kind], int(count))


def read_archive(
    path: Path, is_node: Callable[[str, str], bool], advice: str, views_of: Callable[[Any], Mapping[str, View]]
) -> tuple[dict[str, Tensor], Any]:
    """The tensors that `views_of` finds in what an archive's `data.pkl` describes, and that description.

    Raises BackboneError for an archive that asks for more than tensors and what `is_node` takes, or is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            place = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
            if archive.getinfo(place).file_size > LARGEST_PICKLE:
                raise BackboneError(f"{path}: its module tree is larger than any CLIP's; use a .safetensors file.")
            content = TensorUnpickler(archive.read(place), path, is_node, advice).load()
            folder, storages = place.removesuffix("data.pkl") + "data/", dict[str, Tensor]()
            views = views_of(content)
            return {name: _materialise(view, archive, folder, storages) for name, view in views.items()}, content
    except BackboneError:
        raise
    except Exception as error:  # a crafted or damaged pickle can fail in any way; none of them has run code
        raise BackboneError(
            f"{path} is no checkpoint, or damaged ({type(error).__name__}: {error}); fetch it again."
        ) from error


def _materialise(view: View, archive: zipfile.ZipFile, folder: str, storages: dict[str, Tensor]) -> Tensor:
    """The tensor that `view` describes; storages are read once. The bounds are checked, by size and by as_strided."""
    store = view.storage
    if store.key not in storages:
        info = archive.getinfo(folder + store.key)
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != store.elements * store.dtype.itemsize:
            raise ValueError(f"storage {store.key} has {info.file_size} bytes for {store.elements} of {store.dtype}")
        data = bytearray(archive.read(info))
        storages[store.key] = torch.frombuffer(data, dtype=store.dtype) if data else torch.empty(0, dtype=store.dtype)
    return storages[store.key].as_strided(view.size, view.stride, view.offset)
