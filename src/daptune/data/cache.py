"""Decoded images kept: in memory between epochs, the least recently used leaving first; on disk between runs."""

import hashlib
import os
import struct
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from functools import partial
from pathlib import Path

from PIL import Image

from daptune.data import images
from daptune.data.table import ImageSource
from daptune.errors import DataError

MEMORY_BYTES = 1 << 30
DISK_BYTES = 20_000_000_000  # 20 GB: the training images of most data sets, decoded
_BYTES_A_PIXEL = 4  # what Pillow takes for RGB


class Decoder:
    """`decode` that keeps what it decoded: whoever shares one decodes an image once, as far as memory allows.

    Checks for unreadable images, loaders and measurements take it. Safe to use from several threads.

    memory_bytes: decoded images kept in memory; 0: none.
    cache_dir: folder that decoded images of files are kept in for later runs, up to DISK_BYTES; None: not.
    shrink_to: that of `decode`.
    """

    def __init__(
        self,
        memory_bytes: int = MEMORY_BYTES,
        cache_dir: str | Path | None = None,
        *,
        shrink_to: int | None = None,
    ) -> None:
        self._memory = ImageCache(memory_bytes)
        self._disk = None if cache_dir is None else DiskCache(Path(cache_dir), DISK_BYTES)
        self._shrink_to = shrink_to

    def __call__(self, source: ImageSource) -> Image.Image:
        """The RGB image of a source; DataError in one line where there is none."""
        return self._memory.get(_key(source), partial(self._decoded, source))

    def forget(self, sources: Iterable[ImageSource]) -> None:
        """Give back the memory of images that are not asked for again."""
        self._memory.forget(_key(source) for source in sources)

    def _decoded(self, source: ImageSource) -> Image.Image:
        plain = partial(images.decode, source, shrink_to=self._shrink_to)
        return self._disk.get(source, plain) if self._disk and isinstance(source, Path) else plain()


class _Same:
    """A source as a key, by identity: arrays and images have no hash."""

    def __init__(self, source: object) -> None:
        self.source = source

    def __hash__(self) -> int:
        return id(self.source)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.source is self.source


def _key(source: ImageSource) -> Hashable:
    return source if isinstance(source, Path) else _Same(source)


class ImageCache:
    """RGB images by key, at most `limit` bytes of them; safe to use from several threads."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0
        """Bytes in the cache now."""
        self._images: OrderedDict[Hashable, Image.Image] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, decode: Callable[[], Image.Image]) -> Image.Image:
        """The image of a key, decoded outside the lock where it is not held."""
        with self._lock:
            if key in self._images:
                self._images.move_to_end(key)
                return self._images[key]
        image = decode()
        size = _bytes(image)
        with self._lock:
            if key not in self._images and size <= self.limit:
                self._images[key] = image
                self.held += size
                while self.held > self.limit:
                    self.held -= _bytes(self._images.popitem(last=False)[1])
        return image

    def forget(self, keys: Iterable[Hashable]) -> None:
        """Let go of the images of these keys, where they are held."""
        with self._lock:
            for key in keys:
                if (image := self._images.pop(key, None)) is not None:
                    self.held -= _bytes(image)


def _bytes(image: Image.Image) -> int:
    return image.width * image.height * _BYTES_A_PIXEL


class DiskCache:
    """RGB images as files of a folder, whole and exact, at most about `limit` bytes of them; runs may share it.

    Nothing leaves to make room: epochs go round, and what left would be what is asked for next. A file is called by its
    picture's path, size and time of change, so that a picture that changed is decoded anew. Safe to use from several
    threads. Raises DataError where the folder cannot be made.
    """

    _HEADER = struct.Struct("<4sII")  # mark, width, height; then 3 bytes a pixel
    _MARK = b"RGB1"

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder.expanduser(), limit
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.held = sum(entry.stat().st_size for entry in os.scandir(self.folder) if entry.is_file())
        except OSError as error:
            raise DataError(f"the cache {folder} cannot be used ({error.strerror}); name another folder.") from None
        self._lock = threading.Lock()

    def get(self, picture: Path, decode: Callable[[], Image.Image]) -> Image.Image:
        """The image of a file; what cannot be read back or written is decoded as without a cache."""
        try:
            about = picture.stat()
        except OSError:
            return decode()  # which says what is wrong
        key = f"{os.path.realpath(picture)}\0{about.st_size}\0{about.st_mtime_ns}"
        place = self.folder / f"{hashlib.sha256(key.encode('utf-8', 'surrogateescape')).hexdigest()}.rgb"
        image = self._read(place)
        if image is None:
            image = decode()
            self._write(place, image)
        return image

    def _read(self, place: Path) -> Image.Image | None:
        try:
            content = place.read_bytes()
            mark, width, height = self._HEADER.unpack_from(content)
        except (OSError, struct.error):
            return None
        if mark != self._MARK or len(content) != self._HEADER.size + 3 * width * height:
            return None
        return Image.frombytes("RGB", (width, height), content[self._HEADER.size :])

    def _write(self, place: Path, image: Image.Image) -> None:
        size = self._HEADER.size + 3 * image.width * image.height
        with self._lock:
            if self.held + size > self.limit:
                return
            self.held += size
        fresh = place.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
        try:
            fresh.write_bytes(self._HEADER.pack(self._MARK, image.width, image.height) + image.tobytes())
            os.replace(fresh, place)
        except OSError:  # a full disk: training goes on
            fresh.unlink(missing_ok=True)
