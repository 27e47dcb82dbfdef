"""`daptune export`: an adapter as an ONNX file, or its class weights as a table."""

from pathlib import Path

from daptune.classifier import FewShotClassifier
from daptune.cli.console import emit_json, note, print_pairs, size_text, warnings_shown
from daptune.cli.options import RunOptions, load_with
from daptune.errors import DataError


def run(
    adapter: Path, *, to: str, out: Path | None, dtype: str, images: Path | None, backbone: str | None, as_json: bool
) -> int:
    """Do it; raises DaptuneError for bad input."""
    if to == "text-weights" and (dtype != "fp32" or images is not None):
        raise DataError("--dtype and --images belong to --to onnx; leave them out")
    with warnings_shown():
        # exports start from the exact numbers, whatever the adapter was trained in
        classifier = load_with(adapter, RunOptions(precision="fp32", backbone=backbone))
        if to == "onnx":
            return _onnx(classifier, out or Path("model.onnx"), dtype, images, as_json)
        return _weights(classifier, out or Path("text-weights.npy"), as_json)


def _onnx(classifier: FewShotClassifier, out: Path, dtype: str, images: Path | None, as_json: bool) -> int:
    from daptune.export.onnx_file import export_onnx

    done = export_onnx(classifier, out, dtype=dtype, images=images)
    found = done.agreement
    if as_json:
        emit_json(
            {"file": str(done.path), "bytes": done.size, "dtype": dtype, "agreement": found.to_json()}
            | {"warning": done.warning}
        )
        return 0
    *sizes, last = found.batches
    print_pairs(
        {
            "file": f"{done.path} ({size_text(done.size)}, {dtype})",
            "classes": len(classifier.classes_),
            "measured on": f"{found.images} {found.source}",
            "batches": f"of {', '.join(map(str, sizes))} and {last}",
            "same class as torch": f"{100 * found.top1:.2f} %",
            "largest difference": f"{found.max_logit_difference:.2g} in a logit",
        }
    )
    if done.warning is not None:
        note(f"daptune: warning: {done.warning}")
    return 0


def _weights(classifier: FewShotClassifier, out: Path, as_json: bool) -> int:
    from daptune.export.weights import export_weights

    done = export_weights(classifier, out)
    if as_json:
        emit_json(
            {"files": [str(path) for path in done.paths], "shape": done.shape, "scale": done.scale}
            | {"warning": done.warning}
        )
        return 0
    rows, columns = done.shape
    print_pairs(
        {
            "files": ", ".join(str(path) for path in done.paths),
            "weights": f"{rows} classes x {columns}, text features times {done.scale:.4g}",
            "use": "softmax(z @ weights.T), z the unit image features of the same CLIP",
        }
    )
    if done.warning is not None:
        note(f"daptune: warning: {done.warning}")
    return 0
