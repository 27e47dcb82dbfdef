"""What an exported file says of itself: one JSON object under the key "daptune" of ONNX's metadata. Without torch."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from daptune.clip.preprocess import Preprocess
from daptune.errors import AdapterError, BackboneError

KEY = "daptune"
FORMAT_VERSION = 1
INPUT, LOGITS, PROBABILITIES = "images", "logits", "probabilities"


@dataclass(frozen=True)
class Metadata:
    """Everything that whoever runs the file has to know. JSON values only."""

    class_names: tuple[str, ...]
    preprocess: dict[str, Any]
    """`Preprocess.to_dict()`: size, mean and std of RGB scaled to 0..1, resize and crop, interpolation."""
    labels: list[int] | None = None
    """What predictions answer with where the training labels were integers; None: the class names."""
    temperature: float = 1.0
    """The output `probabilities` is softmax(logits / temperature)."""
    method: str = ""
    backbone: dict[str, str] = field(default_factory=dict)
    dtype: str = "fp32"
    """Of the matrices of the image tower: fp32, fp16 or int8. Input and outputs are float32."""
    agreement: dict[str, Any] = field(default_factory=dict)
    """How well the file agreed with torch when it was written."""
    version: str = ""
    """Of daptune."""
    channels: str = "RGB"
    layout: str = "NCHW"
    format_version: int = FORMAT_VERSION

    def to_json(self) -> str:
        """The text of the metadata."""
        return json.dumps(asdict(self), ensure_ascii=False, allow_nan=False)


def read_metadata(stored: Mapping[str, str], path: str) -> tuple[Metadata, Preprocess]:
    """The metadata of a file, checked, and its image transform.

    Raises AdapterError, one line, for a file that daptune did not write, that is newer or damaged.
    """
    if KEY not in stored:
        raise AdapterError(f"{path} is an ONNX file, but not one that `daptune export` wrote; export the adapter")
    try:
        content = json.loads(stored[KEY])
        version = content.pop("format_version")
        if version > FORMAT_VERSION:
            raise AdapterError(
                f"{path} was made by a newer daptune: format {version}, this version reads up to {FORMAT_VERSION}; "
                "update with: pip install -U daptune"
            )
        known = {item.name for item in fields(Metadata)}
        found = Metadata(**{name: value for name, value in content.items() if name in known})
        names = tuple(str(name) for name in found.class_names)
        if not names or (found.labels is not None and len(found.labels) != len(names)):
            raise ValueError("class names and labels do not fit")
        preprocess = Preprocess.from_dict(found.preprocess)
    except AdapterError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, BackboneError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise AdapterError(f"{path} is damaged: its metadata cannot be read ({reason}); export it again") from error
    return Metadata(**{**asdict(found), "class_names": names}), preprocess
