"""What users hand over to be classified: files, folders, images in memory."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from PIL import Image

from daptune.data.folders import image_files
from daptune.data.table import ImageSource, ImageTable, image_cell
from daptune.errors import DataError


def image_sources(images: Any) -> list[ImageSource]:
    """A list of images as sources, or one folder as the image files below it; DataError for anything else."""
    if isinstance(images, ImageTable):
        return list(images.images)
    if isinstance(images, str | Path):
        folder = Path(images).expanduser()
        if not folder.is_dir():
            raise DataError(f"expected a list of images or a folder, found {str(images)!r}; put one file into a list.")
        return list(image_files(folder))
    if isinstance(images, bytes | Image.Image) or not isinstance(images, Iterable):
        raise DataError(f"expected a list of images, found one {type(images).__name__}; put it into a list.")
    return [image_cell(image) for image in images]
