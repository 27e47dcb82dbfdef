"""The folder for a browser: what is in it, and in Chromium that it answers as Pillow, numpy and onnxruntime do."""

import base64
import functools
import http.server
import io
import json
import os
import shutil
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from daptune.classifier import FewShotClassifier
from daptune.cli import run
from daptune.clip.preprocess import Preprocess
from daptune.errors import DataError
from daptune.export import web
from daptune.export.web import PARTS, RUNTIME, export_web, page_files
from daptune.predict.onnx import OnnxClassifier

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
in_chromium = pytest.mark.skipif(not Path(CHROMIUM).is_file(), reason="needs /usr/bin/chromium")


def packed(path: Path, parts: dict[str, bytes]) -> Path:
    """A .tgz as npm packs one."""
    with tarfile.open(path, "w:gz") as archive:
        for name, content in {"README.md": b"of no use", **parts}.items():
            member = tarfile.TarInfo(f"package/dist/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def test_every_script_that_is_imported_is_there_and_none_is_the_servers() -> None:
    found = page_files()
    scripts = {name: content.decode() for name, content in found.items() if name.endswith(".js")}
    assert {"app.js", "api.js", "worker.js", "image.js", "known.js", "try.js", "ui.js"} <= scripts.keys()
    assert {"index.html", "style.css", "icon.svg"} <= found.keys()
    for content in scripts.values():
        for line in content.splitlines():
            if line.startswith("import ") or " await import(" in line:
                assert line.split('"./')[1].split('"')[0] in {*scripts, *PARTS}
        assert "/v1/info" not in content and 'fetch("/' not in content
    assert 'href="/' not in found["index.html"].decode() and 'src="/' not in found["index.html"].decode()


def test_the_runtime_is_read_from_a_folder_or_a_package(tmp_path: Path) -> None:
    parts = {name: f"made-up {name}".encode() for name in PARTS}
    unpacked = tmp_path / "onnxruntime-web" / "dist"
    unpacked.mkdir(parents=True)
    for name, content in parts.items():
        (unpacked / name).write_bytes(content)
    for place in (unpacked, unpacked.parent, packed(tmp_path / "ort.tgz", parts)):
        assert web._runtime(place) == parts


@pytest.mark.parametrize("kind", ["nothing", "no archive", "a part missing", "a part too large", "an empty folder"])
def test_what_is_not_the_runtime_is_told_in_a_line(kind: str, tmp_path: Path) -> None:
    first, second = PARTS
    place = tmp_path / "ort.tgz"
    if kind == "no archive":
        place.write_bytes(b"not gzip")
    elif kind == "a part missing":
        packed(place, {first: b"x"})
    elif kind == "a part too large":
        packed(place, {first: b"x" * (PARTS[first] + 1), second: b"x"})
    elif kind == "an empty folder":
        place.mkdir()
    with pytest.raises(DataError, match=RUNTIME) as told:
        web._runtime(place)
    assert "\n" not in str(told.value) and "ort.tgz" in str(told.value)


def test_without_npm_it_says_where_the_runtime_comes_from(
    adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run(["export", str(adapter), "--to", "web", "--out", str(tmp_path / "web")]) == 2
    told = capsys.readouterr().err
    assert f"npm pack {RUNTIME}" in told and "--runtime" in told and not (tmp_path / "web").exists()


def test_npms_own_words_are_told_if_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho 'network is\nunreachable' >&2\nexit 1\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(DataError, match=r"network is unreachable.*--runtime"):
        web._runtime(None)


def test_other_peoples_folders_are_left_alone(exact: FewShotClassifier, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(DataError, match="name a new folder"):
        export_web(exact, tmp_path)
    with pytest.raises(DataError, match="is not a folder; create it"):
        export_web(exact, tmp_path / "none" / "web")


def test_the_runtime_belongs_to_the_web(adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["export", str(adapter), "--runtime", str(tmp_path)]) == 2
    assert "--runtime belongs to --to web" in capsys.readouterr().err


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *said: Any) -> None:
        pass


@contextmanager
def browsing(folder: Path, wrong: list[str]) -> Iterator[Any]:
    """A page of Chromium with `folder` served as static files, and no other host to be reached."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    own = f"http://127.0.0.1:{server.server_port}/"
    try:
        with playwright.sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
            page = browser.new_page()
            page.set_default_timeout(60_000)
            page.on("console", lambda said: wrong.append(said.text) if said.type in ("error", "warning") else None)
            page.on("pageerror", lambda error: wrong.append(str(error)))
            page.on(
                "request", lambda asked: wrong.append(asked.url) if not asked.url.startswith((own, "blob:")) else None
            )
            page.goto(own + "index.html")
            yield page
            browser.close()
    finally:
        server.shutdown()
        server.server_close()


@in_chromium
def test_pixels_and_shares_are_those_of_pillow_and_scipy(tmp_path: Path) -> None:
    """Bit for bit over shapes that shrink, grow, are cut or squashed; shares beyond the known ones by Student's t."""
    folder = tmp_path / "page"
    folder.mkdir()
    for name, content in page_files().items():
        (folder / name).write_bytes(content)
    (folder / "app.js").write_text("")
    rng = np.random.default_rng(0)
    transforms = [
        Preprocess(size=48),
        Preprocess(size=33, interpolation="bilinear", mean=(0.5,) * 3, std=(0.5,) * 3),
        Preprocess(size=40, resize="squash"),
    ]
    shapes = [(48, 48), (37, 91), (400, 123), (20, 30), (1, 3), (3, 120), (250, 7), (300, 290), (99, 60)]
    with browsing(folder, wrong := []) as page:
        page.evaluate("async () => Object.assign(self, await import('./image.js'), await import('./known.js'))")
        for height, width in shapes:
            pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
            for transform in transforms:
                given = {"data": base64.b64encode(pixels.tobytes()).decode(), "width": width, "height": height}
                found = page.evaluate(
                    """([{ data, ...sides }, how]) => {
                      const rgb = Uint8ClampedArray.from(atob(data), (c) => c.charCodeAt(0));
                      return [...normalize(crop({ data: rgb, ...sides }, how), how)];
                    }""",
                    [given, transform.to_dict()],
                )
                expected = transform.array(Image.fromarray(pixels))
                assert np.array_equal(np.float32(found).reshape(expected.shape), expected), (height, width, transform)
        for count in (1, 2, 5, 12):
            known = np.sort(rng.normal(0.8, 0.05, count))
            for value in (known[0] - 0.3, known[0] - 0.01, known[0], known[-1], known.mean(), 0.99):
                rank = (1 + (known <= value).sum()) / (1 + count)
                expected_share = rank
                if count > 1 and value < known[0]:
                    t = (value - known.mean()) / (known.std(ddof=1) * np.sqrt(1 + 1 / count))
                    expected_share = min(rank, stats.t.cdf(t, count - 1))
                found = page.evaluate("([known, value]) => share(known, value)", [known.tolist(), float(value)])
                assert found == pytest.approx(expected_share, abs=1e-9)
    assert wrong == []


def runtime() -> Path | None:
    """The real runtime, where someone has fetched it (`npm pack`) or npm can."""
    if given := os.environ.get("DAPTUNE_ONNXRUNTIME_WEB"):
        return Path(given)
    return None


@in_chromium
@pytest.mark.skipif(runtime() is None, reason=f"needs DAPTUNE_ONNXRUNTIME_WEB: the .tgz of `npm pack {RUNTIME}`")
@pytest.mark.parametrize("dtype", ["fp32", "int8"])
def test_the_page_answers_as_the_file_does(dtype: str, exact: FewShotClassifier, tmp_path: Path) -> None:
    done = export_web(exact, tmp_path / "web", name="mine", dtype=dtype, runtime=runtime())
    assert done.size == sum(path.stat().st_size for path in done.path.iterdir())
    assert json.loads((done.path / "model.json").read_text())["name"] == "mine"
    native = OnnxClassifier(done.path / "model.onnx")
    rng = np.random.default_rng(3)
    pictures = [Image.fromarray(rng.integers(0, 256, (h, w, 3), dtype=np.uint8)) for h, w in ((60, 41), (30, 200))]
    clear = Image.fromarray(rng.integers(0, 256, (50, 50, 4), dtype=np.uint8).clip(*np.uint8([[[0]], [[255]]])))
    with browsing(done.path, wrong := []) as page:
        page.wait_for_selector("#try:not([hidden]) .drop button")
        page.evaluate("async () => { self.ask = (await import('./api.js')).ask }")
        for picture in [*pictures, clear]:
            stream = io.BytesIO()
            picture.save(stream, "PNG")
            found = page.evaluate(
                "async (text) => await ask(new File([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))], 'a.png'))",
                base64.b64encode(stream.getvalue()).decode(),
            )
            expected = native.predict_proba([stream.getvalue()])[0]
            tolerance = 1e-4 if picture.mode == "RGB" else 2e-2  # canvas and Pillow round transparency differently
            np.testing.assert_allclose(found["probabilities"], expected, atol=tolerance)
        path = tmp_path / "seen.png"
        pictures[0].save(path)
        page.set_input_files("input[type=file]", str(path))
        page.wait_for_selector("#results .result .bars, #results .result .unsure")
        broken = tmp_path / "broken.png"
        broken.write_bytes(b"no picture")
        page.set_input_files("input[type=file]", str(broken))
        page.wait_for_selector("#results .result .wrong")
        assert page.inner_text("#results .result .wrong") == "This browser cannot read the picture."
    assert wrong == []
