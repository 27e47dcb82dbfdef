"""`daptune export`: an adapter as an ONNX file, or its class weights as a table."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from daptune.cli.app import app
from daptune.cli.console import emit_json, note, print_pairs, size_text, warnings_shown
from daptune.cli.options import Adapter, Json, RunOptions, load_with
from daptune.errors import DataError

if TYPE_CHECKING:
    from daptune.classifier import FewShotClassifier


@app.command
def export(
    adapter: Adapter,
    /,
    *,
    to: Literal["onnx", "text-weights"] = "onnx",
    out: Path | None = None,
    dtype: Literal["fp32", "fp16", "int8"] = "fp32",
    images: Path | None = None,
    backbone: str | None = None,
    json: Json = False,
) -> int:
    """Write an adapter for other programs: one ONNX file, whose agreement with torch is measured, or class weights.

    `daptune predict model.onnx` runs the file, without torch.

    Parameters
    ----------
    to
        `onnx`: image tower with prompts, class weights, names and preprocessing in one file. `text-weights`: the
        class weights as .npy and CSV, for the same CLIP elsewhere.
    out
        File to write; by default `model.onnx` or `text-weights.npy`.
    dtype
        Of the image tower's matrices.
    images
        Folder that the agreement is measured on; by default the demo's pictures, or made-up ones.
    backbone
        Where the adapter's backbone lies now, if not under the name that the adapter has.
    """
    if to == "text-weights" and (dtype != "fp32" or images is not None):
        raise DataError("--dtype and --images belong to --to onnx; leave them out")
    with warnings_shown():
        # exports start from the exact numbers, whatever the adapter was trained in
        classifier = load_with(adapter, RunOptions(precision="fp32", backbone=backbone))
        if to == "onnx":
            done, shown = _onnx(classifier, out or Path("model.onnx"), dtype, images)
        else:
            done, shown = _weights(classifier, out or Path("text-weights.npy"))
    if json:
        emit_json(done)
        return 0
    print_pairs(shown)
    if done["warning"] is not None:
        note(f"daptune: warning: {done['warning']}")
    return 0


def _onnx(
    classifier: "FewShotClassifier", out: Path, dtype: str, images: Path | None
) -> tuple[dict[str, Any], dict[str, object]]:
    """Write the ONNX file: what --json prints, and what is printed without it."""
    from daptune.export.onnx_file import export_onnx

    done = export_onnx(classifier, out, dtype=dtype, images=images)
    found = done.agreement
    *sizes, last = found.batches
    return {
        "file": str(done.path),
        "bytes": done.size,
        "dtype": dtype,
        "agreement": asdict(found),
        "warning": done.warning,
    }, {
        "file": f"{done.path} ({size_text(done.size)}, {dtype})",
        "classes": len(classifier.classes_),
        "measured on": f"{found.images} {found.source}",
        "batches": f"of {', '.join(map(str, sizes))} and {last}",
        "same class as torch": f"{100 * found.top1:.2f} %",
        "largest difference": f"{found.max_logit_difference:.2g} in a logit",
    }


def _weights(classifier: "FewShotClassifier", out: Path) -> tuple[dict[str, Any], dict[str, object]]:
    """The same for the class weights."""
    from daptune.export.weights import export_weights

    done = export_weights(classifier, out)
    files, (rows, columns) = [str(path) for path in done.paths], done.shape
    return {"files": files, "shape": done.shape, "scale": done.scale, "warning": done.warning}, {
        "files": ", ".join(files),
        "weights": f"{rows} classes x {columns}, text features times {done.scale:.4g}",
        "use": "softmax(z @ weights.T), z the unit image features of the same CLIP",
    }
