"""What `adapter.json` holds, as a dataclass, and the reading of it: every field is checked, nothing is trusted."""

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from daptune.errors import AdapterError

FORMAT_VERSION = 1
JSON_FILE, TENSOR_FILE, CARD_FILE = "adapter.json", "adapter.safetensors", "README.md"


@dataclass(frozen=True)
class AdapterRecord:
    """Everything about an adapter except its tensors. JSON values only."""

    backbone: dict[str, str]
    """`name` and `sha256` of the frozen CLIP, and the `precision` it was trained in."""
    method: str
    method_config: dict[str, Any]
    class_names: tuple[str, ...]
    preprocess: dict[str, Any]
    """`Preprocess.to_dict()` of the backbone: what happens to an image before the vision tower."""
    tensors: dict[str, list[int]] = field(default_factory=dict)
    """Name -> shape of what `adapter.safetensors` holds."""
    tensors_sha256: str = ""
    train_config: dict[str, Any] = field(default_factory=dict)
    seed: int | None = None
    shots: int | None = None
    data: dict[str, Any] = field(default_factory=dict)
    """`fingerprint` of the training images, and how many of them and of what source."""
    metrics: dict[str, Any] = field(default_factory=dict)
    labels: list[int] | None = None
    """What predictions answer with where the training labels were integers; None: the class names."""
    temperature: float = 1.0
    """Probabilities are softmax(logits / temperature); 1 unless calibrated."""
    versions: dict[str, str] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    def to_json(self) -> str:
        """The text of `adapter.json`; keys in the order of the fields, format first."""
        content = asdict(self)
        ordered = {"format_version": content.pop("format_version"), **content}
        return json.dumps(ordered, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


_TYPES: dict[str, type | tuple[type, ...]] = {
    "backbone": dict,
    "method": str,
    "method_config": dict,
    "class_names": list,
    "preprocess": dict,
    "tensors": dict,
    "tensors_sha256": str,
    "train_config": dict,
    "seed": (int, type(None)),
    "shots": (int, type(None)),
    "data": dict,
    "metrics": dict,
    "temperature": (int, float),
    "versions": dict,
}


def read_record(folder: Path) -> AdapterRecord:
    """`adapter.json` of a folder.

    Raises AdapterError, one line, when it is missing, damaged, incomplete or of a newer format.
    """
    path = folder / JSON_FILE
    if not folder.is_dir():
        raise AdapterError(f"no adapter at {folder}: expected a folder that `daptune fit ... --out` wrote")
    if not path.is_file():
        raise AdapterError(f"{folder} is not an adapter: it has no {JSON_FILE}; `daptune fit` writes one")
    try:
        content = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise AdapterError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:  # also UnicodeDecodeError and, for deep nesting below, RecursionError
        raise damaged(path, f"it is not JSON ({error})") from error
    except RecursionError as error:
        raise damaged(path, "it is nested too deeply") from error
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
    for name, kind in _TYPES.items():
        if name not in content:
            raise damaged(path, f"{name!r} is missing")
        if not isinstance(content[name], kind) or isinstance(content[name], bool):
            raise damaged(path, f"{name!r} is {_short(content[name])}")
    names = content["class_names"]
    if not names or not all(isinstance(name, str) and name for name in names) or len(set(names)) < len(names):
        raise damaged(path, "'class_names' must be different, non-empty words")
    for key in ("name", "sha256"):
        if not isinstance(content["backbone"].get(key), str):
            raise damaged(path, f"'backbone' has no {key!r}")
    labels = content.setdefault("labels", None)
    if labels is not None and not (_are_integers(labels) and len(set(labels)) == len(names)):
        raise damaged(path, "'labels' must be None or a different number for every class")
    if not (math.isfinite(content["temperature"]) and content["temperature"] > 0):
        raise damaged(path, f"'temperature' is {content['temperature']!r}")
    if not all(_is_shape(shape) for shape in content["tensors"].values()):
        raise damaged(path, "'tensors' must give a shape for every name")
    content["class_names"] = tuple(names)
    known = {item.name for item in fields(AdapterRecord)}
    return AdapterRecord(**{name: value for name, value in content.items() if name in known})


def read_tensor_file(folder: Path, record: AdapterRecord) -> bytes:
    """The bytes of `adapter.safetensors`; AdapterError where they are not those that the record speaks of."""
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


def damaged(path: Path, reason: str) -> AdapterError:
    """The one sentence for an adapter whose file is not as it was written."""
    short = " ".join(reason.split())
    return AdapterError(f"{path} is damaged: {short}; copy the adapter again or run `daptune fit` again")


def _is_shape(value: Any) -> bool:
    return _are_integers(value) and min(value, default=0) >= 0


def _are_integers(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, int) for item in value)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
