"""Read and write the files of an adapter and its record `adapter.json`, without torch.

Every field read is checked. A folder is replaced as a whole: after a crash it holds either the old or the new adapter.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from daptune import files
from daptune.adapter.fields import BYTES, MOST_TENSORS, VALUES, fault_in
from daptune.errors import AdapterError, foreign
from daptune.foreign import read_header, read_json
from daptune.names import ClassNames
from daptune.regular import open_regular
from daptune.text import one_line

FORMAT_VERSION = 3
"""1: no ensemble and no `names`; 2: no `thresholds`. The lowest is written, so that earlier versions read adapters."""
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
    """Probabilities are softmax(logits / temperature), with `thresholds` sigmoids; 1 unless calibrated."""
    thresholds: list[float] | None = None
    """An image shows each class from this probability on, (C,); None: it has one class. Format 3."""
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def prompt_names(self) -> ClassNames:
        """What a method of these classes is built with."""
        return self.class_names if self.names is None else {name: self.names[name] for name in self.class_names}

    def to_json(self) -> str:
        content = asdict(self)
        later = {"ensemble": 2, "names": 2, "thresholds": 3}  # the format of each field
        absent = [name for name in later if not content[name]]
        for name in absent:
            del content[name]
        content["format_version"] = max((later[name] for name in later if name not in absent), default=1)
        return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    @property
    def multi_label(self) -> bool:
        """Whether images have any number of classes."""
        return self.thresholds is not None

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
            "multi_label": self.multi_label,
        }


def read_record(folder: Path) -> AdapterRecord:
    """Read `adapter.json`. Raises AdapterError if it is missing, damaged, incomplete or of a newer format."""
    path = folder / JSON_FILE
    if not folder.is_dir():
        raise AdapterError(f"no adapter at {folder}: expected a folder that `daptune fit ... --out` wrote")
    if not path.is_file():
        raise AdapterError(f"{folder} is not an adapter: it has no {JSON_FILE}; `daptune fit` writes one")
    with foreign(lambda why: damaged(path, f"it is not JSON that can be read ({why})")):
        return _record(folder, path, read_json(path, most=BYTES, values=VALUES))


def _record(folder: Path, path: Path, content: Any) -> AdapterRecord:
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
    if fault := fault_in(content, AdapterRecord):
        raise damaged(path, fault)
    content["class_names"] = tuple(content["class_names"])
    known = {item.name for item in fields(AdapterRecord)}
    return AdapterRecord(format_version=version, **{name: value for name, value in content.items() if name in known})


def read_tensor_file(folder: Path, record: AdapterRecord) -> bytes:
    """The bytes of `adapter.safetensors`, whose header lists no more than they hold.

    Raises AdapterError unless their sha256 is that of the record.
    """
    path = folder / TENSOR_FILE
    if not path.is_file():
        raise damaged(path, "it is missing")
    with foreign(lambda why: damaged(path, f"it is not a safetensors file ({why})")), open_regular(path) as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != record.tensors_sha256:
            raise damaged(path, "its sha256 is not the one in adapter.json")
        file.seek(0)
        entries, _ = read_header(file, os.fstat(file.fileno()).st_size)
        if len(entries) > MOST_TENSORS:
            raise damaged(path, f"it lists {len(entries):,} tensors; an adapter has at most {MOST_TENSORS:,}")
        file.seek(0)
        return file.read()


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
    short = one_line(reason)
    return AdapterError(f"{path} is damaged: {short}; copy the adapter again or run `daptune fit` again")
