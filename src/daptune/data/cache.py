"""Caches of decoded images: in memory between epochs (least recently used evicted first), on disk between runs."""

import hashlib
import os
import struct
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path

from PIL import Image

from daptune import files
from daptune.data import images
from daptune.data.identical import pixel_digest
from daptune.data.table import ImageSource
from daptune.errors import DataError

MEMORY_BYTES = 1 << 30
DISK_BYTES = 20_000_000_000  # 20 GB: the training images of most data sets, decoded
_BYTES_A_PIXEL = 4  # what Pillow takes for RGB


class Decoder:
    """`decode` that keeps decoded images, so that all who share one decode an image once, as far as memory allows.

    Used by checks for unreadable images, loaders and measurements. Thread-safe.

    memory_bytes: limit for decoded images in memory; 0: keep none.
    cache_dir: folder that keeps the decoded images of files for later runs, up to DISK_BYTES; None: no such folder.
    shrink_to: as for `decode`.
    """

    def __init__(
        self,
        memory_bytes: int = MEMORY_BYTES,
        cache_dir: str | Path | None = None,
        *,
        shrink_to: int | None = None,
    ) -> None:
        self.limit, self.held = memory_bytes, 0
        # Paths are compared by value, other sources by identity; the entry keeps its source, so the id stays its own.
        self._images: OrderedDict[Path | int, tuple[ImageSource, Image.Image]] = OrderedDict()
        self._digests: dict[Path | int, tuple[ImageSource, bytes]] = {}
        self._lock = threading.Lock()
        self._disk = None if cache_dir is None else DiskCache(Path(cache_dir), DISK_BYTES)
        self._shrink_to = shrink_to

    def __call__(self, source: ImageSource) -> Image.Image:
        """The RGB image of a source, decoded outside the lock. Raises DataError in one line if it is unreadable."""
        key = _key(source)
        with self._lock:
            if key in self._images:
                self._images.move_to_end(key)
                return self._images[key][1]
        plain = partial(images.decode, source, shrink_to=self._shrink_to)
        image = self._disk.get(source, plain) if self._disk and isinstance(source, Path) else plain()
        size = _bytes(image)
        with self._lock:
            if key not in self._images and size <= self.limit:
                self._images[key] = source, image
                self.held += size
                while self.held > self.limit:
                    self.held -= _bytes(self._images.popitem(last=False)[1][1])
        return image

    def examine(self, source: ImageSource) -> None:
        """Decode as a call does, and remember the digest of the pixels. Raises DataError as a call does."""
        key, image = _key(source), self(source)
        with self._lock:
            if key in self._digests:
                return
        digest = pixel_digest(image)
        with self._lock:
            self._digests[key] = source, digest

    def digest(self, source: ImageSource) -> bytes | None:
        """The digest of an image that was examined: the same for images with the same pixels; else None."""
        with self._lock:
            entry = self._digests.get(_key(source))
        return None if entry is None else entry[1]

    def forget(self, sources: Iterable[ImageSource]) -> None:
        """Free the memory of images that are not needed again."""
        with self._lock:
            for source in sources:
                self._digests.pop(_key(source), None)
                if (entry := self._images.pop(_key(source), None)) is not None:
                    self.held -= _bytes(entry[1])


def _key(source: ImageSource) -> Path | int:
    return source if isinstance(source, Path) else id(source)


def _bytes(image: Image.Image) -> int:
    return image.width * image.height * _BYTES_A_PIXEL


class DiskCache:
    """RGB images as files of a folder, lossless, at most about `limit` bytes; several runs may share it.

    Does not evict: epochs read images in turn, so an evicted image would be needed next. The file name is made of the
    picture's path, size and modification time, so a changed picture is decoded again. Thread-safe. Raises DataError
    if the folder cannot be created.
    """

    _HEADER = struct.Struct("<4sII")  # mark, width, height; then 3 bytes a pixel
    _MARK = b"RGB1"

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder.expanduser(), limit
        with files.told(lambda why: DataError(f"the cache {folder} cannot be used ({why}); name another folder.")):
            self.folder.mkdir(parents=True, exist_ok=True)
            files.clear(self.folder)
            self.held = sum(entry.stat().st_size for entry in os.scandir(self.folder) if entry.is_file())
        self._lock = threading.Lock()

    def get(self, picture: Path, decode: Callable[[], Image.Image]) -> Image.Image:
        """The image of a file; decoded as without a cache if it cannot be read back or written."""
        try:
            about = picture.stat()
        except OSError:
            return decode()  # which raises the error
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
        content = self._HEADER.pack(self._MARK, image.width, image.height) + image.tobytes()
        with suppress(OSError), files.replacing(place, durable=False) as fresh:  # a full disk: go on without the cache
            fresh.write_bytes(content)
