"""`daptune suggest`: the images to label next, as a list, a folder of links, or a page."""

import io
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from daptune.cli import STDIN
from daptune.cli.console import emit_json, note, progress, warnings_shown
from daptune.cli.loading import load_with
from daptune.cli.options import RunOptions, SuggestOptions
from daptune.cli.predict import image_stream
from daptune.errors import DataError
from daptune.files import recovered, scratch, told
from daptune.labelling import Suggestion, Suggestions, suggest_of
from daptune.predict.inputs import spelt
from daptune.report.page import Page, Section, check_out, write_page
from daptune.report.table import Cell, Table, text_row
from daptune.report.thumbnails import gallery

PAGES = (".html", ".htm")
MOST_LETTERS = 120
"""Of a link's name after its number: file systems allow 255 bytes."""


def run(adapter: Path, paths: Sequence[str], chosen: SuggestOptions, options: RunOptions) -> int:
    """Run the command. Raises DaptuneError for bad input or if no image could be read."""
    if chosen.number < 1:
        raise DataError(f"-n must be at least 1; found {chosen.number}")
    if adapter.suffix.lower() == ".onnx":
        raise DataError(f"{adapter} gives no image features; name the folder of the adapter that it was exported from")
    paths = ["-" if path == STDIN else path for path in paths]
    out = None if chosen.out is None else check_target(chosen.out)
    images, total = image_stream(paths)
    classifier = load_with(adapter, options)
    classifier.scaled_decoding = chosen.scaled_decoding
    with warnings_shown(), progress(steps=True) as bar:
        task = bar.add_task("looking", total=total, note="")
        found = suggest_of(classifier, images, chosen.number, lambda count: bar.advance(task, count))
    if found.unreadable:
        whole, first = found.read + found.unreadable, found.reasons[0].reason
        note(f"daptune: {found.unreadable:,} of {whole:,} files could not be read; the first: {first}")
    if not found.images:
        raise DataError("none of the files could be read; name files or folders with images")
    if out is not None:
        if out.suffix.lower() in PAGES:
            write_page(suggestions_page(found, adapter), out)
        else:
            link(found.images, out)
    if chosen.json:
        emit_json(_json(found) | {"adapter": str(adapter), "out": None if out is None else str(out)})
        return 0
    if out is None:
        sys.stdout.writelines(f"{one.name}\t{one.label}\t{one.probability:.3f}\n" for one in found.images)
    note(f"daptune: {_counted(found)}{'' if out is None else f' in {out}'}")
    return 0


def check_target(out: Path) -> Path:
    """The expanded path of a page or of a new or empty folder. Raises DataError for anything else."""
    if out.suffix.lower() in PAGES:
        return check_out(out)
    out = out.expanduser()
    recovered(out)
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise DataError(f"--out {out} exists already; name a new folder for links, or a page such as next.html")
    return out


def link(images: Sequence[Suggestion], folder: Path) -> None:
    """Links to the images in a new folder, named by rank and class; files that are no links where these cannot be.

    Images that are not files, as in a Parquet table, are written. Raises DataError if the folder cannot be written.
    """
    digits = len(str(len(images)))
    with told(lambda why: DataError(f"{folder} cannot be written: {why}; name another folder with --out")):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with scratch(folder) as fresh:  # complete or not there
            _link(images, fresh, digits)
            if folder.is_dir():
                folder.rmdir()
            fresh.rename(folder)


def _link(images: Sequence[Suggestion], folder: Path, digits: int) -> None:
    for rank, one in enumerate(images, start=1):
        name = f"{one.label} {Path(one.name).stem}".replace("/", "-").replace("\\", "-")
        name = name.encode("utf-8", "replace").decode()[:MOST_LETTERS]
        if isinstance(one.source, Path):
            place, source = folder / f"{rank:0{digits}d} {name}{one.source.suffix}", os.path.abspath(one.source)
            try:
                place.symlink_to(source)
            except OSError:  # a file system, or a user of Windows, without links
                shutil.copyfile(source, place)
        elif isinstance(one.source, bytes):
            kind = (Image.open(io.BytesIO(one.source)).format or "image").lower()
            (folder / f"{rank:0{digits}d} {name}.{kind}").write_bytes(one.source)


def suggestions_page(found: Suggestions, adapter: Path) -> Page:
    """A page with the images, what they are taken for, and a list of them as a CSV file beside it."""
    items = []
    for rank, one in enumerate(found.images, start=1):
        guess = f"{rank}. {spelt(one.label)}, {100 * one.probability:.0f} %?"
        items.append((one.source, guess, [one.name]))
    rows = [text_row(one.name, str(one.label), Cell("", one.probability), Cell("", one.margin)) for one in found.images]
    table = Table("suggestions", "Images to label next", ("file", "guess", "probability", "margin"), tuple(rows))
    text = (
        "The adapter is unsure of these images, and they are unlike each other. Label them, add them to the training "
        "images, and fit again. The name is the adapter's guess: check it."
    )
    section = Section("images", "Images, least certain first", text, more=[gallery(items)], files=[table])
    facts = [("images", f"{found.read:,}"), ("unreadable", f"{found.unreadable:,}")]
    return Page("Images to label next", f"Suggestions of {adapter.name}", [_counted(found) + "."], [section], facts)


def _json(found: Suggestions) -> dict[str, Any]:
    rows = [
        {"file": one.name, "label": one.label, "probability": one.probability, "margin": one.margin}
        for one in found.images
    ]
    return {"images": found.read, "unreadable": found.unreadable, "suggestions": rows}


def _counted(found: Suggestions) -> str:
    few = f"all {found.read:,} images that can be read" if len(found.images) == found.read else ""
    return few or f"{len(found.images):,} of {found.read:,} images to label next"
