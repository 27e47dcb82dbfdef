"""`export_web`: a fitted classifier -> a folder of static files that classifies pictures in a browser.

index.html, app.js, try.js, ui.js, ...   the page: the tab "Try" of `daptune serve`, with api.js of export/page
model.onnx, model.json                   the model of `export_onnx`, and its metadata for the page
ort*                                     onnxruntime-web, which runs it
"""

import json
import re
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import asdict
from pathlib import Path

from daptune import files
from daptune.classifier import FewShotClassifier
from daptune.errors import DataError, foreign
from daptune.export.agreement import Agreement
from daptune.export.onnx_file import Exported, onnx_bytes
from daptune.text import one_line

RUNTIME = "onnxruntime-web@1.30.0"
PARTS = {"ort.wasm.bundle.min.mjs": 1_000_000, "ort-wasm-simd-threaded.wasm": 64_000_000}
"""Files of the runtime, and the most bytes that each is read with."""
PAGE = Path(__file__).parent / "page"
SERVED = Path(__file__).parents[1] / "serve" / "page"
_IMPORT = re.compile(r'(?:\bfrom|\bimport\(?)\s*"\./([\w-]+\.js)"')


def export_web(
    classifier: FewShotClassifier,
    out: str | Path,
    *,
    name: str = "model",
    dtype: str = "fp32",
    images: Path | None = None,
    beside: FewShotClassifier | None = None,
    runtime: Path | None = None,
) -> Exported:
    """Write a page that answers as `predict` does with the file of `export_onnx`; `Exported.size` is of all files.

    name: of the adapter on the page. runtime: folder of onnxruntime-web as npm unpacks it, or its .tgz; without it,
    npm fetches it. Other arguments as `export_onnx`. Raises DataError, MethodError, MissingExtraError.
    """
    target = _check_folder(Path(out))
    content = _runtime(runtime) | page_files()
    content["model.onnx"], about = onnx_bytes(classifier, dtype=dtype, images=images, beside=beside)
    content["model.json"] = json.dumps(asdict(about) | {"name": name}, ensure_ascii=False).encode()
    with files.told(lambda why: DataError(f"{target} was not written ({why}); name another folder with --out")):
        files.replace_folder(target, content)
    return Exported(target, sum(map(len, content.values())), dtype, Agreement(**about.agreement))


def page_files() -> dict[str, bytes]:
    """The page, with what its scripts import from the server's page; a script of export/page stands in for its own."""
    found = {path.name: path.read_bytes() for path in PAGE.iterdir() if path.is_file()}
    found |= {name: (SERVED / name).read_bytes() for name in ("style.css", "icon.svg")}
    wanted = list(found)
    while wanted:
        for name in _IMPORT.findall(found[wanted.pop()].decode()):
            if name not in found:
                found[name] = (SERVED / name).read_bytes()
                wanted.append(name)
    return found


def _check_folder(out: Path) -> Path:
    path = out.expanduser().resolve()
    if path.is_file() or (path.is_dir() and any(path.iterdir()) and not (path / "model.onnx").is_file()):
        raise DataError(f"{out} holds something that `daptune export --to web` did not write; name a new folder")
    if not path.parent.is_dir():
        raise DataError(f"{out.parent} is not a folder; create it, or name another folder with --out")
    return path


def _runtime(place: Path | None) -> dict[str, bytes]:
    if place is not None:
        return _unpacked(place.expanduser())
    advice = f"`npm pack {RUNTIME}` fetches it on another machine; name the file with --runtime"
    npm = shutil.which("npm")
    if npm is None:
        raise DataError(f"the page needs {RUNTIME}, and there is no npm here: install npm (Node.js), or {advice}")
    with tempfile.TemporaryDirectory() as folder:
        asked = [npm, "pack", RUNTIME, "--silent", "--ignore-scripts", "--pack-destination", folder]
        done = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=600)
        packed = next(Path(folder).glob("*.tgz"), None)
        if done.returncode or packed is None:
            why = one_line(done.stderr or done.stdout) or f"exit status {done.returncode}"
            raise DataError(f"npm could not fetch {RUNTIME} ({why}); {advice}")
        return _unpacked(packed)


def _unpacked(place: Path) -> dict[str, bytes]:
    """The parts of a folder of the runtime, or of its .tgz."""
    advice = f"expected the folder or the .tgz of {RUNTIME}"
    if place.is_dir():
        folder = place / "dist" if (place / "dist").is_dir() else place
        with files.told(lambda why: DataError(f"{place} is not the runtime ({why}); {advice}")):
            return {name: (folder / name).read_bytes() for name in PARTS}
    found: dict[str, bytes] = {}
    with (
        foreign(lambda why: DataError(f"{place} cannot be read ({why}); {advice}"), passing=(DataError,)),
        tarfile.open(place, "r:gz") as packed,
    ):
        for member in packed:
            name = member.name.removeprefix("package/dist/")
            content = packed.extractfile(member) if member.size <= PARTS.get(name, -1) else None
            if content is not None:
                found[name] = content.read()
    if missing := PARTS.keys() - found.keys():
        raise DataError(f"{place} has no {min(missing)}; {advice}")
    return found
