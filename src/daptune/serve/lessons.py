"""Lessons, the image sets of the web page: FOLDER/<name>.images/<class>/<digest>.png beside the adapter FOLDER/<name>.

The file .lesson.json among the classes holds their order and the events of the last training that made an adapter. All
state is in the folder, so it survives a restart, and `daptune fit FOLDER/<name>.images` can read it.
"""

import hashlib
import io
import json
import re
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from daptune import files
from daptune.adapter.record import JSON_FILE
from daptune.serve.limits import IMAGES_SUFFIX, Refused, check_class, check_name, is_name

MOST_CLASSES = 200
MOST_IMAGES = 5_000  # images per lesson; for more, use `daptune fit`
STORED_SIDE = 640  # longest side of a stored image in pixels: more than any backbone needs
STATE_FILE = ".lesson.json"  # hidden, so that readers of image folders skip it
_ID = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class LessonClass:
    """A class and the ids of its images."""

    name: str
    images: list[str]


@dataclass(frozen=True)
class Lesson:
    """The training images of one adapter; classes in the order in which they were added."""

    name: str
    classes: list[LessonClass]
    trained: bool
    """Whether there is an adapter, possibly trained on an earlier state of the images."""


class Lessons:
    """The lessons in a folder. Every name is checked here before it becomes part of a path."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._writing = threading.Lock()  # of the state files
        files.clear(folder, files=False)  # what a server that was killed left
        for place in folder.glob(f"*{IMAGES_SUFFIX}"):
            for each in (place, *(label for label in place.iterdir() if label.is_dir())):
                files.clear(each)

    def all(self) -> list[Lesson]:
        places = sorted(path for path in self.folder.glob(f"*{IMAGES_SUFFIX}") if path.is_dir())
        names = (place.name.removesuffix(IMAGES_SUFFIX) for place in places)
        return [self.get(name) for name in names if is_name(name)]

    def get(self, name: str) -> Lesson:
        """One lesson. Raises `Refused` 404."""
        root = self._root(name)
        order = {label: number for number, label in enumerate(self._state(name)["classes"])}
        places = [place for place in root.iterdir() if place.is_dir() and not place.name.startswith(".")]
        places.sort(key=lambda place: (order.get(place.name, len(order)), place.name))  # folders made by hand: last
        classes = [LessonClass(place.name, [image.stem for image in _in_order(place)]) for place in places]
        return Lesson(name, classes, (self.folder / name / JSON_FILE).is_file())

    def create(self, name: str, classes: list[str]) -> Lesson:
        """Create a lesson without images. Raises `Refused`: 422 bad name, 409 name taken, 413 too many classes."""
        check_name(name)
        if (self.folder / name).exists() or self._place(name).exists():
            raise Refused(409, f"the name {name!r} is already taken; choose another name.")
        if len(set(classes)) < len(classes):
            raise Refused(422, "expected different class names, found one twice.")
        if len(classes) > MOST_CLASSES:
            raise Refused(413, f"more than {MOST_CLASSES} classes; use `daptune fit` for more.")
        for each in classes:
            check_class(each)
        with files.scratch(self._place(name)) as fresh:  # there as a whole or not at all
            for each in classes:
                (fresh / each).mkdir()
            files.write(fresh / STATE_FILE, json.dumps({"classes": classes}, ensure_ascii=False).encode())
            fresh.rename(self._place(name))
        return self.get(name)

    def delete(self, name: str) -> None:
        """Remove a lesson and its images; the adapter stays."""
        files.remove_folder(self._root(name))

    def add_class(self, name: str, label: str) -> None:
        """Add a class if it is missing."""
        there = [each.name for each in self.get(name).classes]
        if len(there) >= MOST_CLASSES:
            raise Refused(413, f"more than {MOST_CLASSES} classes; use `daptune fit` for more.")
        (self._root(name) / check_class(label)).mkdir(exist_ok=True)
        if label not in there:
            self._change(name, classes=[*there, label])

    def remove_class(self, name: str, label: str) -> None:
        files.remove_folder(self._class(name, label))
        self._change(name, classes=[each.name for each in self.get(name).classes])

    def events(self, name: str) -> list[dict[str, Any]]:
        """The events of the training that made the adapter, or none. Raises `Refused` 404."""
        self._root(name)
        found: list[dict[str, Any]] = self._state(name)["events"]
        return found

    def keep_events(self, name: str, events: list[dict[str, Any]]) -> None:
        self._change(name, events=events)

    def add_image(self, name: str, label: str, image: Image.Image) -> str:
        """Store a decoded image for a class and return its id; identical images are stored once."""
        place = self._class(name, label)
        if sum(len(each.images) for each in self.get(name).classes) >= MOST_IMAGES:
            raise Refused(413, f"a lesson holds at most {MOST_IMAGES} images; use `daptune fit` for more.")
        image.thumbnail((STORED_SIDE, STORED_SIDE))
        stream = io.BytesIO()
        image.save(stream, "PNG")
        identity = hashlib.sha256(stream.getvalue()).hexdigest()[:16]
        files.write(place / f"{identity}.png", stream.getvalue())
        return identity

    def image(self, name: str, label: str, identity: str) -> Path:
        """The file of an image. Raises `Refused` 404."""
        path = self._class(name, label) / f"{identity}.png"
        if not _ID.fullmatch(identity) or not path.is_file():
            raise Refused(404, f"there is no image {identity[:40]!r} of {label!r}.")
        return path

    def remove_image(self, name: str, label: str, identity: str) -> None:
        self.image(name, label, identity).unlink()

    def move_image(self, name: str, label: str, identity: str, to: str) -> None:
        self.image(name, label, identity).replace(self._class(name, to) / f"{identity}.png")

    def _state(self, name: str) -> dict[str, Any]:
        """ "classes" and "events" of the state file; empty ones for what it does not hold, as in earlier versions."""
        try:
            found = files.read_json(self._place(name) / STATE_FILE)
        except (OSError, ValueError):
            found = None
        held = found if isinstance(found, dict) else {}
        lists = {key: held[key] if isinstance(held.get(key), list) else [] for key in ("classes", "events")}
        sound = all(isinstance(label, str) for label in lists["classes"])
        told = all(isinstance(event, dict) and isinstance(event.get("type"), str) for event in lists["events"])
        return {"classes": lists["classes"] if sound else [], "events": lists["events"] if told else []}

    def _change(self, name: str, **parts: Any) -> None:
        with self._writing:
            content = json.dumps(self._state(name) | parts, ensure_ascii=False)
            files.write(self._place(name) / STATE_FILE, content.encode())

    def _place(self, name: str) -> Path:
        return self.folder / f"{check_name(name)}{IMAGES_SUFFIX}"

    def _root(self, name: str) -> Path:
        root = self._place(name)
        if not root.is_dir():
            raise Refused(404, f"there is no lesson named {name!r}.")
        return root

    def _class(self, name: str, label: str) -> Path:
        place = self._root(name) / check_class(label)
        if not place.is_dir():
            raise Refused(404, f"{name!r} has no class {label!r}.")
        return place


def _in_order(place: Path) -> list[Path]:
    """The images of a class, oldest first."""
    images = [path for path in place.glob("*.png") if _ID.fullmatch(path.stem)]
    return sorted(images, key=lambda path: (path.stat().st_mtime_ns, path.name))
