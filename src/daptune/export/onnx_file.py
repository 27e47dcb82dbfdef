"""`export_onnx`: a fitted classifier -> one ONNX file; its agreement with torch is measured before it is written."""

from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from daptune import files
from daptune.classifier import FewShotClassifier
from daptune.errors import DataError, MethodError
from daptune.export.agreement import RANDOM, TARGETS, Agreement, images_for, measure
from daptune.export.graph import folded, trace
from daptune.export.int8 import to_int8
from daptune.export.rounding import can_measure, measured
from daptune.predict.exported import KEY
from daptune.predict.onnx import Metadata, OnnxClassifier
from daptune.predict.openvino import Rounding


@dataclass(frozen=True)
class Exported:
    path: Path
    size: int  # bytes
    dtype: str
    agreement: Agreement
    rounding: Rounding = field(default_factory=Rounding)

    @property
    def warning(self) -> str | None:
        target = TARGETS[self.dtype]
        if self.agreement.top1 >= target:
            return None
        better = "" if self.dtype == "fp32" else "; --dtype fp32 agrees best"
        return (
            f"the file predicts the same class as torch for {100 * self.agreement.top1:.1f} % of the images, below "
            f"the target of {100 * target:g} %{better}"
        )


def export_onnx(
    classifier: FewShotClassifier,
    out: str | Path,
    *,
    dtype: str = "fp32",
    images: Path | None = None,
    beside: FewShotClassifier | None = None,
) -> Exported:
    """Write a fitted classifier with a backbone in fp32 as ONNX, in `dtype` "fp32", "fp16" or "int8".

    images: folder to measure the agreement with torch on; without it see `agreement.images_for`. beside: the same
    classifier in the precision that it predicts in, to be compared as well. An existing file is replaced atomically.
    Raises DataError, MethodError, MissingExtraError.
    """
    target = check_out(Path(out), ".onnx")
    content, about = onnx_bytes(classifier, dtype=dtype, images=images, beside=beside, rounding=True)
    files.write(target, content)
    return Exported(target, len(content), dtype, Agreement(**about.agreement), Rounding.read(about.rounding))


def onnx_bytes(
    classifier: FewShotClassifier,
    *,
    dtype: str,
    images: Path | None,
    beside: FewShotClassifier | None,
    rounding: bool = False,
) -> tuple[bytes, Metadata]:
    """The file that `export_onnx` writes, and the metadata in it; with `rounding`, where openvino is installed and the
    images are no random ones, what it changes in bf16 and int8."""
    if dtype not in TARGETS:
        raise DataError(f"dtype must be one of {', '.join(TARGETS)}; found {dtype!r}")
    if (found := classifier.backbone_.precision) != "fp32":
        raise DataError(f"expected a backbone in fp32, found {found}; load the adapter with precision='fp32'")
    last = classifier.method_.clip.visual.last
    if dtype == "int8" and last is None:
        raise MethodError(
            f"--dtype int8 rounds the matrices of a transformer, and {classifier.backbone_.name} sees images by "
            "convolutions: choose fp16, with half the size of fp32"
        )
    sources, called = images_for(classifier, images)
    record = classifier.record_
    model = trace(folded(classifier.method_, half=dtype == "fp16"), record.temperature)
    if dtype == "int8":
        model = to_int8(model, f"clip.visual.{last}")

    mix = classifier.method_.ensemble and classifier.method_.ensemble.mix
    about = Metadata(
        class_names=tuple(classifier.method_.class_names),
        preprocess=classifier.backbone_.preprocess.to_dict(),
        labels=record.labels,
        temperature=record.temperature,
        method=record.method,
        backbone=record.backbone,
        dtype=dtype,
        version=metadata.version("daptune"),
        similarity=mix.similarity if mix else (),
        truth=mix.truth if mix else (),
        tower_ends=tower_ends(model, f"clip.visual.{last}"),
        thresholds=None if record.thresholds is None else tuple(record.thresholds),
        format_version=3 if record.multi_label else 2 if mix and mix.similarity else 1,
    )
    agreement = measure(classifier, OnnxClassifier(_stamped(model, about)), sources, called, beside)
    about = replace(about, agreement=asdict(agreement))
    if rounding and dtype == "fp32" and called != RANDOM and can_measure():
        preprocess, levels = classifier.backbone_.preprocess, classifier.thresholds
        changes = measured(_stamped(model, about), sources, preprocess, levels)
        about = replace(about, rounding=asdict(changes))
    return _stamped(model, about), about


def tower_ends(model: Any, last: str) -> tuple[str, ...]:
    """Tensors that the norm with the parameter `last` is given; none of a residual network, which has no such norm."""
    return tuple(dict.fromkeys(node.input[0] for node in model.graph.node if last in node.input))


def _stamped(model: Any, about: Metadata) -> bytes:
    del model.metadata_props[:]
    model.metadata_props.add(key=KEY, value=about.to_json())
    content: bytes = model.SerializeToString()
    return content


def check_out(out: Path, suffix: str) -> Path:
    """The expanded path. Raises DataError if no file can be written there."""
    path = out.expanduser()
    if path.suffix.lower() != suffix:
        raise DataError(f"--out expects a name that ends in {suffix}; found {out}")
    if path.is_dir():
        raise DataError(f"{out} is a folder; name a file for --out")
    if not path.parent.is_dir():
        raise DataError(f"{out.parent} is not a folder; create it, or name another file for --out")
    return path
