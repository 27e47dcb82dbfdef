"""Read and write the files of an adapter and its record `adapter.json`, without torch.

Every field read is checked. A folder is replaced as a whole: after a crash it holds either the old or the new adapter.
"""

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from daptune import files
from daptune.errors import AdapterError
from daptune.names import ClassNames

FORMAT_VERSION = 2
"""1: no ensemble and no `names`. Adapters without either are still written as 1, so that earlier versions read them."""
JSON_FILE, TENSOR_FILE, CARD_FILE = "adapter.json", "adapter.safetensors", "README.md"


@dataclass(frozen=True, kw_only=True)
class AdapterRecord:
    """Contents of `adapter.json`, JSON values only."""

    format_version: int = FORMAT_VERSION
    backbone: dict[str, str]
    """`name` and `sha256` of the frozen CLIP, and the `precision` in training."""
    method: str
    method_config: dict[str, Any]
    class_names: tuple[str, ...]
    """Labels, which all answers use."""
    preprocess: dict[str, Any]
    """`Preprocess.to_dict()` of the backbone."""
    tensors: dict[str, list[int]] = field(default_factory=dict)
    """Name -> shape of the tensors in `adapter.safetensors`."""
    tensors_sha256: str = ""
    train_config: dict[str, Any] = field(default_factory=dict)
    seed: int | None = None
    shots: int | None = None
    data: dict[str, Any] = field(default_factory=dict)
    """`fingerprint`, number and source of the training images."""
    metrics: dict[str, Any] = field(default_factory=dict)
    labels: list[int] | None = None
    """Labels of the classes if the training labels were integers; None: the class names."""
    names: dict[str, list[str]] | None = None
    """Label -> the names in its prompt; None: the labels themselves. Format 2."""
    ensemble: dict[str, Any] = field(default_factory=dict)
    """`daptune.methods.ensemble.Mix` as JSON; empty: without an ensemble."""
    temperature: float = 1.0
    """Probabilities are softmax(logits / temperature); 1 unless calibrated."""
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def prompt_names(self) -> ClassNames:
        """What a method of these classes is built with."""
        return self.class_names if self.names is None else {name: self.names[name] for name in self.class_names}

    def to_json(self) -> str:
        content = asdict(self)
        later = {"ensemble": self.ensemble, "names": self.names}
        for name, value in later.items():
            if not value:
                del content[name]
        if not any(later.values()):
            content["format_version"] = 1
        return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    @property
    def ensemble_text(self) -> str:
        """The weights of the ensemble's sources in words; `none` without one."""
        if not self.ensemble:
            return "none"
        sources = zip(("hand-written prompts", "training images", "learned prompts"), self.ensemble["a"], strict=True)
        return ", ".join(f"{name} {weight:.2f}" for name, weight in sources)

    @property
    def settings(self) -> dict[str, Any]:
        """Arguments of a `FewShotClassifier` like the one that made the adapter."""
        training = self.train_config
        if training:  # earlier adapters do not say how images were drawn: in whole passes
            training = {"sampling": "shuffled", "epoch_shots": None} | training
        return {
            "method": self.method,
            "backbone": self.backbone["name"],
            "shots": self.shots,
            "seed": 1 if self.seed is None else self.seed,
            "method_options": self.method_config,
            "train_options": training or None,
            "ensemble": "auto" if self.ensemble else "none",
            "templates": tuple(self.ensemble.get("templates", ())),
            "class_weight": self.data.get("class_weight"),
            "calibrate": "auto" if "calibration" in self.metrics else "none",
        }


def json_types(hint: Any) -> tuple[type, ...]:
    """JSON types of a field with this type hint, for isinstance."""
    parts = [get_origin(part) or part for part in (get_args(hint) if isinstance(hint, UnionType) else (hint,))]
    return tuple(list if part is tuple else part for part in parts) + ((int,) if float in parts else ())


_TYPES = {name: json_types(hint) for name, hint in get_type_hints(AdapterRecord).items()}
for _name in ("format_version", "labels", "names"):  # checked separately; the last two may be missing
    del _TYPES[_name]


def read_record(folder: Path) -> AdapterRecord:
    """Read `adapter.json`. Raises AdapterError if it is missing, damaged, incomplete or of a newer format."""
    path = folder / JSON_FILE
    if not folder.is_dir():
        raise AdapterError(f"no adapter at {folder}: expected a folder that `daptune fit ... --out` wrote")
    if not path.is_file():
        raise AdapterError(f"{folder} is not an adapter: it has no {JSON_FILE}; `daptune fit` writes one")
    try:
        content = files.read_json(path)
    except OSError as error:
        raise AdapterError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise damaged(path, f"it is not JSON ({error})") from error
    if not isinstance(content, dict):
        raise damaged(path, f"expected an object, found {type(content).__name__}")

    version = content.pop("format_version", None)
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise damaged(path, f"format_version is {version!r}")
    if version > FORMAT_VERSION:
        raise AdapterError(
            f"{folder} was made by a newer daptune: format {version}, this version reads up to {FORMAT_VERSION}; "
            "update with: pip install -U daptune"
        )
    content.setdefault("ensemble", {})  # older adapters have none
    if fault := _fault(content):
        raise damaged(path, fault)
    content["class_names"] = tuple(content["class_names"])
    known = {item.name for item in fields(AdapterRecord)}
    return AdapterRecord(**{name: value for name, value in content.items() if name in known})


def _fault(content: dict[str, Any]) -> str | None:
    """The first error in the fields of an `adapter.json`, or None."""
    for name, kind in _TYPES.items():
        if name not in content:
            return f"{name!r} is missing"
        if not isinstance(content[name], kind) or isinstance(content[name], bool):
            return f"{name!r} is {_short(content[name])}"
    names, labels, temperature = content["class_names"], content.get("labels"), content["temperature"]
    if not names or not all(isinstance(name, str) and name for name in names) or len(set(names)) < len(names):
        return "'class_names' must be different, non-empty words"
    for key in ("name", "sha256"):
        if not isinstance(content["backbone"].get(key), str):
            return f"'backbone' has no {key!r}"
    if (spoken := content.get("names")) is not None and not _are_names(spoken, names):
        return "'names' must give one name or more for every class"
    if labels is not None and not (_are_integers(labels) and len(set(labels)) == len(names)):
        return "'labels' must be None or a different number for every class"
    if not (math.isfinite(temperature) and temperature > 0):
        return f"'temperature' is {temperature!r}"
    if not all(_are_integers(shape) and min(shape, default=0) >= 0 for shape in content["tensors"].values()):
        return "'tensors' must give a shape for every name"
    return None


def read_tensor_file(folder: Path, record: AdapterRecord) -> bytes:
    """The bytes of `adapter.safetensors`. Raises AdapterError unless their sha256 is that of the record."""
    path = folder / TENSOR_FILE
    try:
        blob = path.read_bytes()
    except FileNotFoundError:
        raise damaged(path, "it is missing") from None
    except OSError as error:
        raise AdapterError(f"{path} cannot be read: {error.strerror}") from error
    if hashlib.sha256(blob).hexdigest() != record.tensors_sha256:
        raise damaged(path, "its sha256 is not the one in adapter.json")
    return blob


def check_target(folder: Path) -> Path:
    """Resolve the folder of a new adapter; call it before training.

    Raises AdapterError if it is a file, holds something else, or cannot be written.
    """
    folder = folder.expanduser().resolve()
    files.recovered(folder)
    if folder.exists() and not folder.is_dir():
        raise AdapterError(f"{folder} is a file; name a new folder for the adapter")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / JSON_FILE).is_file():
        raise AdapterError(f"{folder} holds something that is not an adapter; name a new or an empty folder")
    with files.told(lambda why: AdapterError(f"{folder.parent} cannot be created: {why}; name another folder")):
        folder.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(folder.parent, os.W_OK):
        raise AdapterError(f"{folder.parent} cannot be written to; name another folder for the adapter")
    return folder


def write_folder(folder: Path, content: Mapping[str, bytes]) -> Path:
    """Write an adapter's files (name -> bytes) into `folder` and return it; other files in it are kept.

    Raises AdapterError as `check_target`, or for a full disk; the old folder is then unchanged.
    """
    folder = check_target(folder)
    with files.told(lambda why: AdapterError(f"{folder} was not written: {why}; the previous files are kept")):
        files.replace_folder(folder, content)
    return folder


def damaged(path: Path, reason: str) -> AdapterError:
    short = " ".join(reason.split())
    return AdapterError(f"{path} is damaged: {short}; copy the adapter again or run `daptune fit` again")


def _are_integers(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, int) for item in value)


def _are_names(value: Any, class_names: list[str]) -> bool:
    if not isinstance(value, dict) or value.keys() != set(class_names):
        return False
    return all(
        isinstance(own, list) and own and all(isinstance(name, str) and name.strip() for name in own)
        for own in value.values()
    )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
