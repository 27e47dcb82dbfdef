"""`daptune export`: an adapter as an ONNX file, a web page, or its class weights as a table."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from daptune.cli.app import command
from daptune.cli.console import emit_json, note, print_pairs, progress, size_text, warned, warnings_shown
from daptune.cli.loading import load_with
from daptune.cli.options import Adapter, AllowDownload, Json, RunOptions
from daptune.errors import DataError

if TYPE_CHECKING:
    from daptune.classifier import FewShotClassifier
    from daptune.export.agreement import Agreement
    from daptune.export.onnx_file import Exported


@command
def export(
    adapter: Adapter,
    /,
    *,
    to: Literal["onnx", "web", "text-weights"] = "onnx",
    out: Path | None = None,
    dtype: Literal["fp32", "fp16", "int8"] = "fp32",
    images: Path | None = None,
    runtime: Path | None = None,
    backbone: str | None = None,
    allow_download: AllowDownload = False,
    json: Json = False,
) -> int:
    """Export an adapter as one ONNX file, with measured agreement with torch, as a web page, or as class weights.

    `daptune predict model.onnx` runs the file without torch.

    Parameters
    ----------
    to
        `onnx`: image tower with prompts, class weights, names and preprocessing in one file. `web`: a folder of static
        files that classifies pictures in a browser, without a server of daptune's. `text-weights`: class weights as
        .npy and CSV, for the same CLIP in another program; of `prolip` the projection too.
    out
        Output file or folder; default `model.onnx`, `web` or `text-weights.npy`.
    dtype
        Number format of the image tower's matrices.
    images
        Folder with images to measure the agreement on; default: the demo's images or random images.
    runtime
        With `web`: the folder or .tgz of onnxruntime-web; default: npm fetches it.
    backbone
        Current location of the adapter's backbone, if it differs from the recorded name.
    """
    if to == "text-weights" and (dtype != "fp32" or images is not None):
        raise DataError("--dtype and --images belong to --to onnx and web; leave them out")
    if to != "web" and runtime is not None:
        raise DataError("--runtime belongs to --to web; leave it out")
    with warnings_shown() as told, progress(steps=False) as bar:
        bar.add_task("exporting the model, and comparing it with torch", total=None, note="")
        # always export from fp32, whatever the training precision
        where = RunOptions(precision="fp32", backbone=backbone, allow_download=allow_download)
        classifier = load_with(adapter, where)
        if to == "text-weights":
            done, shown = _weights(classifier, out or Path("text-weights.npy"))
        else:
            own = classifier.record_.backbone.get("precision", "fp32")
            beside = None if own == "fp32" else load_with(adapter, replace(where, precision=None))
            how = {"dtype": dtype, "images": images, "beside": beside}
            done, shown = _model(_exported(to, classifier, out, adapter.name, runtime, **how), classifier)
    if json:
        emit_json(done | warned(told, done["warning"]))
        return 0
    print_pairs(shown)
    if done["warning"] is not None:
        note(f"daptune: warning: {done['warning']}")
    return 0


def _exported(
    to: str, classifier: "FewShotClassifier", out: Path | None, name: str, runtime: Path | None, **how: Any
) -> "Exported":
    if to == "onnx":
        from daptune.export.onnx_file import export_onnx

        return export_onnx(classifier, out or Path("model.onnx"), **how)
    from daptune.export.web import export_web

    return export_web(classifier, out or Path("web"), name=name, runtime=runtime, **how)


def _model(done: "Exported", classifier: "FewShotClassifier") -> tuple[dict[str, Any], dict[str, object]]:
    found, folder = done.agreement, done.path.is_dir()
    *sizes, last = found.batches
    shown: dict[str, object] = {
        "folder" if folder else "file": f"{done.path} ({size_text(done.size)}, {done.dtype})",
        "classes": len(classifier.classes_),
        "measured on": f"{found.images} {found.source}",
        "batches": f"of {', '.join(map(str, sizes))} and {last}",
        "same class as torch": f"{100 * found.top1:.2f} % in fp32{_beside_text(found)}",
        "largest difference": f"{found.max_logit_difference:.2g} in a logit",
    }
    for name, share in done.rounding.same.items():
        shown[f"openvino in {name}"] = (
            f"{100 * share:.2f} % as in fp32, of {done.rounding.images} other images; "
            f"{100 * done.rounding.again[name]:.1f} % near ties, computed again more finely"
        )
    if folder:
        shown["try it"] = f"python -m http.server -d {done.path}, then open http://localhost:8000"
    return {
        "file": str(done.path),
        "bytes": done.size,
        "dtype": done.dtype,
        "agreement": asdict(found),
        "openvino": {key: value for key, value in asdict(done.rounding).items() if key != "ranges"},
        "warning": done.warning,
    }, shown


def _beside_text(found: "Agreement") -> str:
    if found.predict_top1 is None:
        return ""
    return f", {100 * found.predict_top1:.2f} % in {found.predict_precision}, which `daptune predict ADAPTER` runs in"


def _weights(classifier: "FewShotClassifier", out: Path) -> tuple[dict[str, Any], dict[str, object]]:
    from daptune.export.weights import export_weights

    done = export_weights(classifier, out)
    files, (rows, columns) = [str(path) for path in done.paths], done.shape
    tower = "the same CLIP" if len(files) == 2 else f"the same CLIP with {files[2]} as visual.proj"
    return {"files": files, "shape": done.shape, "scale": done.scale, "warning": done.warning}, {
        "files": ", ".join(files),
        "weights": f"{rows} classes x {columns}, text features times {done.scale:.4g}",
        "use": f"softmax(z @ weights.T), with z the unit image features of {tower}",
    }
