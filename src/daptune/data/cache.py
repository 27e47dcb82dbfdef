"""Decoded images kept: in memory between epochs, the least recently used leaving first; on disk between runs."""

import hashlib
import os
import struct
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from daptune.errors import DataError

_BYTES_A_PIXEL = 4  # what Pillow takes for RGB


class ImageCache:
    """RGB images by row, at most `limit` bytes of them; safe to use from several threads."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0
        """Bytes in the cache now."""
        self._images: OrderedDict[int, Image.Image] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, row: int, decode: Callable[[], Image.Image]) -> Image.Image:
        """The image of a row, decoded outside the lock where it is not held."""
        with self._lock:
            if row in self._images:
                self._images.move_to_end(row)
                return self._images[row]
        image = decode()
        size = image.width * image.height * _BYTES_A_PIXEL
        with self._lock:
            if row not in self._images and size <= self.limit:
                self._images[row] = image
                self.held += size
                while self.held > self.limit:
                    _, oldest = self._images.popitem(last=False)
                    self.held -= oldest.width * oldest.height * _BYTES_A_PIXEL
        return image


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
