"""Install the lowest versions that pyproject.toml allows and use them: `make lowest`.

The package alone, and with each extra, gets an environment of its own in which uv resolves what daptune asks for to
the lowest version (`--resolution lowest-direct`; what those ask for is left to the resolver). Then the commands of the
part run, on the embedded backbone and a few pictures of the demo. A bound that is too low shows as a failed command:
raise it in pyproject.toml. At the end a table is printed: what each part has over the core, its commands, and whether
they passed.

    python tools/lowest.py                   # all parts
    python tools/lowest.py export serve      # some
    python tools/lowest.py --folder /big     # environments, pictures and uv's cache elsewhere (several GB of torch)

uv does not read pip's configuration; `UV_FIND_LINKS` and `UV_INDEX` tell it about other sources.
"""

import argparse
import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import tomllib
import urllib.request
import venv
from collections.abc import Callable
from pathlib import Path
from zipfile import ZipFile

ROOT = Path(__file__).parents[1]
CLASSES = 4
PLAN = """
name = "lowest"
backbone = "tiny"
datasets = ["demo"]
seeds = [1]
train = { steps = 2 }
[[experiments]]
kind = "fewshot"
methods = ["zero_shot", "linear_probe", "coop"]
shots = [1]
"""


class Part:
    """An environment and what is tried in it."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder, self.adapter = name, folder, folder / "adapter"
        self.environment = folder / "environments" / name
        self.python = self.environment / "bin" / "python"
        self.work = folder / "work" / name
        self.ran: list[str] = []  # the verbs
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir(parents=True)

    def install(self, uv: Path) -> None:
        """The lowest versions, and what the tests of `core` need as it is."""
        wanted = f"{ROOT}[{self.name}]" if self.name != "core" else str(ROOT)
        check([uv, "venv", "--quiet", "--clear", "--python", sys.executable, self.environment])
        install = [uv, "pip", "install", "--quiet", "--python", self.python]
        newly = ["--refresh-package", "daptune"]  # uv builds a folder again only where its pyproject.toml is another
        check([*install, "--resolution", "lowest-direct", *newly, wanted])
        check([*install, "pytest", "hypothesis"])

    def versions(self, uv: Path) -> dict[str, str]:
        """What is installed of what pyproject.toml names for this part."""
        listed = check([uv, "pip", "list", "--quiet", "--format", "json", "--python", self.python])
        installed = {plain(each["name"]): each["version"] for each in json.loads(listed)}
        return {name: installed[name] for name in map(plain, requirements()[self.name]) if name in installed}

    def daptune(self, *words: str, **variables: str) -> str:
        """What the command prints; CalledProcessError where it fails."""
        self.ran.append(words[0])
        return check([self.environment / "bin" / "daptune", *words], self.work, **variables)

    def fit(self) -> None:
        """Pictures, and an adapter that has seen them twice; what another part has made is taken, but for `core`."""
        self.pictures()
        if self.name == "core" or not self.adapter.is_dir():
            options = ["--method", "coop_vpt", "--epochs", "2", "--out", str(self.adapter)]
            self.daptune("fit", str(self.folder / "pictures"), *options)
        for shared in (self.adapter, self.folder / "pictures"):
            (self.work / shared.name).symlink_to(shared)

    def pictures(self) -> None:
        """Some of the demo's, a folder a class."""
        with ZipFile(ROOT / "src/daptune/data/demo/demo.zip") as packed:
            inside = [name for name in packed.namelist() if name.split("/")[1] == "support"]
            names = sorted({name.split("/")[2] for name in inside})[:CLASSES]
            for name in inside:
                if name.split("/")[2] in names:
                    target = self.folder / "pictures" / name.split("/")[2] / name.split("/")[3]
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(packed.read(name))

    def a_picture(self) -> Path:
        """One of the pictures."""
        return next((self.folder / "pictures").rglob("*.webp"))


def core(part: Part) -> None:
    """Learn, measure, label; a linear probe; a plan; to a Hub and back; pixels and tokens beside the originals."""
    part.daptune("methods")
    part.fit()
    part.daptune("show", "adapter")
    part.daptune("eval", "adapter", "pictures", "--json")
    part.daptune("predict", "adapter", "pictures", "--out", "labels.csv")
    part.daptune("fit", "pictures", "--method", "linear_probe", "--shots", "4", "--out", "probe")
    part.daptune("fit", "pictures", "--method", "zero_shot", "--out", "nothing")  # a file without tensors
    part.daptune("eval", "nothing", "pictures")
    (part.work / "plan.toml").write_text(PLAN)
    part.daptune("bench", "plan.toml", "--processes", "1")
    sys.path.insert(0, str(ROOT / "tests"))
    from stand_in_hub import TOKEN, running_hub

    with running_hub() as hub:  # for whole processes: huggingface_hub reads its address once, when it is imported
        there = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "0", "HF_HOME": str(part.work / "hub")}
        part.daptune("push", "adapter", "hf:user/lowest", **there)
        part.daptune("pull", "hf:user/lowest", **there)
        part.daptune("eval", "hf:user/lowest", "pictures", **there)
    tests = ["clip/test_preprocess.py", "clip/test_tokenizer.py", "clip/test_hub.py"]
    check([part.python, "-m", "pytest", "-q", *(ROOT / "tests" / test for test in tests)], ROOT)


def report(part: Part) -> None:
    """The page of a fit and that of a plan."""
    part.fit()
    part.daptune("report", "adapter", "--images", "pictures", "--out", "fit.html")
    (part.work / "plan.toml").write_text(PLAN)
    part.daptune("bench", "plan.toml", "--processes", "1", "--out", "run")
    part.daptune("report", "run", "--out", "bench.html")


def export(part: Part) -> None:
    """Each kind of file, and its labels."""
    part.fit()
    for dtype in ("fp32", "fp16", "int8"):
        part.daptune("export", "adapter", "--dtype", dtype, "--out", f"{dtype}.onnx")
        part.daptune("predict", f"{dtype}.onnx", "pictures")
    part.daptune("export", "adapter", "--to", "text-weights", "--out", "weights.npy")


def openvino(part: Part) -> None:
    """A file that the part before wrote."""
    part.fit()
    model = part.folder / "work" / "export" / "fp32.onnx"
    if not model.is_file():
        raise RuntimeError(f"no {model}; try the part export first, which writes it")
    part.daptune("predict", str(model), "pictures", "--engine", "openvino")


def serve(part: Part) -> None:
    """A picture sent to a server of its own."""
    part.fit()
    command = [part.environment / "bin" / "daptune", "serve", "adapter", "--port", "0"]
    part.ran.append("serve")
    log = part.work / "server.log"
    with log.open("w") as told:
        server = subprocess.Popen(command, cwd=part.work, stdout=told, stderr=told)
    try:
        port = int(said(server, log, r"http://127\.0\.0\.1:(\d+)"))
        listens(server, port)
        head = 'Content-Disposition: form-data; name="files"; filename="a.webp"\r\nContent-Type: image/webp'
        body = f"--x\r\n{head}\r\n\r\n".encode() + part.a_picture().read_bytes() + b"\r\n--x--\r\n"
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        kind = {"Content-Type": "multipart/form-data; boundary=x"}
        connection.request("POST", "/v1/adapters/adapter/predict", body, kind)
        answer = connection.getresponse()
        rows = json.loads(answer.read())
        if answer.status != 200 or not rows["predictions"][0]["top"]:
            raise RuntimeError(f"{answer.status}: {rows}")
        for path in ("/", "/metrics", "/openapi.json"):
            urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60).read()
    finally:
        server.terminate()
        server.wait(60)


def tune(part: Part) -> None:
    """One setting tried beside the defaults."""
    part.fit()
    options = ["--trials", "2", "--epochs", "1", "--folds", "2", "--method", "coop"]
    part.daptune("tune", "pictures", *options)


def cluster(part: Part) -> None:
    """Labels by the tasks of a cluster of this machine."""
    part.fit()
    (part.work / "plan.toml").write_text(PLAN)
    part.daptune("bench", "plan.toml", "--executor", "ray", "--processes", "1")


def parquet(part: Part) -> None:
    """A table written and read."""
    part.fit()
    part.daptune("predict", "adapter", "pictures", "--out", "labels.parquet")
    make = "import pyarrow, pyarrow.parquet as p; p.write_table(pyarrow.table({'path': [%r]}), 'images.parquet')"
    check([part.python, "-c", make % str(part.a_picture())], part.work)
    part.daptune("predict", "adapter", "images.parquet")


def heic(part: Part) -> None:
    """A picture of a phone, written and read."""
    part.fit()
    make = "import pillow_heif as h; from PIL import Image; h.from_pillow(Image.new('RGB', (64, 64))).save('a.heic')"
    check([part.python, "-c", make], part.work)
    part.daptune("predict", "adapter", "a.heic")


def video(part: Part) -> None:
    """A film, written and read."""
    part.fit()
    make = (
        "import av, numpy as np\n"
        "with av.open('film.mp4', 'w') as out:\n"
        "    stream = out.add_stream('mpeg4', rate=25)\n"
        "    stream.width = stream.height = 64\n"
        "    for _ in range(30):\n"
        "        frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format='rgb24')\n"
        "        out.mux(stream.encode(frame))\n"
        "    out.mux(stream.encode(None))\n"
    )
    check([part.python, "-c", make], part.work)
    part.daptune("predict", "adapter", "film.mp4", "--every", "1s")


def tensorboard(part: Part) -> None:
    """The curves of a run."""
    part.fit()
    part.daptune("fit", "pictures", "--method", "coop", "--epochs", "2", "--tensorboard", "logs", "--out", "other")
    if not any((part.work / "logs").iterdir()):
        raise RuntimeError("no curves")


PARTS: dict[str, Callable[[Part], None]] = {
    "core": core, "report": report, "export": export, "openvino": openvino, "serve": serve, "tune": tune,
    "cluster": cluster, "parquet": parquet, "heic": heic, "video": video, "tensorboard": tensorboard,
}  # fmt: skip


def requirements() -> dict[str, list[str]]:
    """What pyproject.toml asks for, by part: the core, and each extra but those of all and of development."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = {"core": project["dependencies"], **project["optional-dependencies"]}
    return {
        part: [re.split(r"[^\w-]", each)[0] for each in asked]
        for part, asked in wanted.items()
        if part not in ("all", "dev", "docs")  # those that bring no command
    }


def plain(name: str) -> str:
    """A distribution's name as indexes write it."""
    return name.lower().replace("_", "-")


def table(rows: list[tuple[str, dict[str, str], list[str], bool]]) -> str:
    """Part, versions, verbs and whether they passed, in Markdown."""
    python = ".".join(map(str, sys.version_info[:3]))
    lines = [f"Python {python}", "", "| part | lowest versions | commands | passed |", "|---|---|---|---|"]
    for name, versions, verbs, passed in rows:
        told = ", ".join(f"{package} {version}" for package, version in versions.items())
        commands = ", ".join(f"`{verb}`" for verb in dict.fromkeys(verbs))
        lines.append(f"| {name} | {told} | {commands} | {'yes' if passed else 'no'} |")
    return "\n".join(lines)


def said(server: subprocess.Popen[bytes], log: Path, pattern: str) -> str:
    """What the pattern finds in the log of a server that starts; RuntimeError where it ends before."""
    while True:
        ended = server.poll() is not None
        if found := re.search(pattern, log.read_text()):
            return found[1]
        if ended:
            raise RuntimeError(log.read_text())
        try:
            server.wait(0.2)
        except subprocess.TimeoutExpired:
            continue


def listens(server: subprocess.Popen[bytes], port: int) -> None:
    """Wait until it takes connections: it names its port before. RuntimeError after a minute, or where it ends."""
    for _ in range(300):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.2)
        if server.poll() is not None:
            break
    raise RuntimeError(f"nothing listens on port {port}")


def check(command: list[str | Path], folder: Path | None = None, **variables: str) -> str:
    """Run it and return what it prints; CalledProcessError with all that it said where it fails."""
    environment = os.environ | variables
    done = subprocess.run(list(map(str, command)), cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, list(map(str, command)), done.stdout, done.stderr)
    return done.stdout


def main() -> int:
    """All parts, however many fail; 1 if one did."""
    parser = argparse.ArgumentParser(description="Use daptune at the lowest versions that pyproject.toml allows.")
    parser.add_argument("parts", nargs="*", help=f"some of {', '.join(PARTS)}; all by default")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "lowest", help="where everything is put")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    if untried := set(requirements()) - set(PARTS):
        parser.error(f"no command tries {', '.join(sorted(untried))}: add it to PARTS")
    folder: Path = arguments.folder.resolve()
    uv = folder / "uv" / "bin" / "uv"
    if not uv.is_file():
        venv.create(uv.parents[1], with_pip=True, clear=True)
        check([uv.with_name("python"), "-m", "pip", "install", "--quiet", "uv"])
    os.environ.setdefault("UV_CACHE_DIR", str(folder / "cache"))  # beside the environments: files are linked
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # there is little to compute, and much waiting for each other
    rows = []
    for name in arguments.parts or PARTS:
        part = Part(name, folder)
        try:
            part.install(uv)
            PARTS[name](part)
        except (subprocess.CalledProcessError, RuntimeError, OSError) as error:
            passed = False
            words = getattr(error, "cmd", None) or [type(error).__name__, str(error)]
            said_last = "\n".join(f"{getattr(error, 'stdout', '')}{getattr(error, 'stderr', '')}".splitlines()[-40:])
            print(f"{name}: failed\n  {' '.join(words)}\n{said_last}", flush=True)
        else:
            passed = True
            print(f"{name}: works", flush=True)
        rows.append((name, part.versions(uv) if part.python.exists() else {}, part.ran, passed))
    print(f"\n{table(rows)}", flush=True)
    return 0 if all(passed for *_, passed in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
