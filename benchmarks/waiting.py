"""What a person waits for: `python -m benchmarks.waiting --place build/waiting [--methods dapt,coop] [--limit 120]`.

Whole processes, from typing to the result, with a made-up CLIP of ViT-B/16's shape from a file and made-up JPEG
photographs of 640 x 480 pixels (benchmarks/pictures.py): `daptune fit` by every method at its defaults for 10 x 16 and,
with `--classes 100`, 100 x 16 photographs; `daptune predict` of 1 and 100 files; `daptune serve` until it is ready;
programs that encode the same files with transformers, ONNX Runtime and OpenVINO (`pip install transformers onnxruntime
openvino`; `--peers`). A fit that takes longer than `--limit` seconds is ended, and its time is what had passed plus its
remaining epochs at the rate of those that it did; such figures have a `~`. With `--short`, for methods that train
through the image tower, it has two epochs of two images of each class, and the whole is counted at the rate of the
second of them. PLACE keeps photographs, weights and results
(waiting.json): what is there is not run again, so that a run may be ended at any time. `--show` prints what is there.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import torch

from benchmarks import workload
from benchmarks.host import about, environment
from benchmarks.pictures import make_pictures
from daptune.methods import METHODS
from daptune.train import TrainConfig

SHOTS, HELD_OUT, BATCH = 16, 0.2, 32  # images of a class; the defaults of `daptune fit`
EPOCH = re.compile(r"^daptune: \S+ (\d+)/(\d+): ")
PROGRAM = (sys.executable, "-m", "daptune")
PEERS = ("transformers", "onnxruntime", "openvino")
Row = dict[str, Any]


def prepared(place: Path, classes: int) -> tuple[Path, Path]:
    """A checkpoint, and a folder with a folder for each class."""
    place.mkdir(parents=True, exist_ok=True)
    weights, photographs = place / "made-up.pt", place / f"photographs-{classes}"
    if not weights.exists():
        torch.save(workload.weights(), weights)
    if not photographs.exists():
        flat = place / f"flat-{classes}"
        flat.mkdir(exist_ok=True)
        for number, path in enumerate(make_pictures(flat, classes * SHOTS)):
            own = photographs / f"thing {number % classes:03}"
            own.mkdir(parents=True, exist_ok=True)
            path.rename(own / path.name)
    return weights, photographs


def estimate(epochs: list[tuple[float, int, int]]) -> float:
    """Seconds of a whole fit, from (seconds, epoch, of so many) at the ends of some: the rest at the rate of these."""
    (first, a, _), (now, b, total) = epochs[0], epochs[-1]
    return now + (total - b) * (now - first) / (b - a)


def fit_seconds(command: list[str], limit: float) -> tuple[float, bool]:
    """Wall seconds of a fit, and whether they were measured to the end."""
    began, lines = time.perf_counter(), list[tuple[float, int, int]]()
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment()
    ) as process:
        last = ""
        for line in process.stderr or ():
            now, last = time.perf_counter() - began, line
            if found := EPOCH.match(line):
                lines.append((now, int(found[1]), int(found[2])))
            if now > limit and lines and lines[-1][1] > lines[0][1] + 1:
                process.kill()
                return estimate(lines), False
        if process.wait():
            raise SystemExit(f"{' '.join(command)}: {last}")
    return time.perf_counter() - began, True


def short_fit_seconds(command: list[str], out: Path, classes: int) -> tuple[float, bool]:
    """Wall seconds of a whole fit without validation images, at the rate of a short one."""
    each = 2
    spent = seconds([*command, "--epochs", "2", "--train", f"epoch_shots={each}"])
    rows = [json.loads(line) for line in (out.with_name(f"{out.name}.run") / "history.jsonl").read_text().splitlines()]
    trained = round(SHOTS * (1 - HELD_OUT)) * classes
    epochs = TrainConfig().resolved(-(-trained // BATCH)).epochs or 0
    rest = spent - sum(row["seconds"] for row in rows)
    return rest + epochs * trained / (each * classes) * rows[-1]["seconds"], False


def seconds(command: list[str]) -> float:
    """Wall seconds of a process."""
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr[-500:]}")
    return time.perf_counter() - began


def ready(port: int) -> None:
    """Wait until a server says that it can answer, for two minutes."""
    end = time.perf_counter() + 120
    while time.perf_counter() < end:
        try:
            with urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1):
                return
        except OSError:
            time.sleep(0.05)
    raise SystemExit(f"no server at port {port}")


def until_ready(command: list[str], port: int) -> float:
    """Wall seconds from the start of a server."""
    began = time.perf_counter()
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=environment()) as process:
        ready(port)
        found = time.perf_counter() - began
        process.terminate()
    return found


def small_adapter(place: Path, weights: Path, photographs: Path) -> Path:
    """An adapter of DAPT, trained for a moment, once."""
    adapter = place / "adapter"
    if not adapter.exists():
        given = ["--shots", "4", "--train", "text_steps=5", "--train", "steps=5", "--backbone", str(weights)]
        seconds([*PROGRAM, "fit", str(photographs), "--out", str(adapter), *given])
    return adapter


def exported(place: Path, adapter: Path, photographs: Path) -> Path:
    """The adapter as an ONNX file, once; its agreement is measured on few images."""
    model = place / "model.onnx"
    if not model.exists():
        few = next(photographs.iterdir())
        seconds([*PROGRAM, "export", str(adapter), "--out", str(model), "--images", str(few)])
    return model


def rows(options: argparse.Namespace) -> Iterator[tuple[str, Any]]:
    """Name of each row, and what measures it."""
    weights, photographs = prepared(options.place, options.classes)
    size = f"{options.classes} x {SHOTS}"

    def place(method: str) -> Path:
        return options.place / "fits" / f"{method}-{options.classes}"

    def fit(method: str) -> list[str]:
        out = place(method)
        for left in (out, out.with_name(f"{out.name}.run")):
            shutil.rmtree(left, ignore_errors=True)
        shots = () if options.short else ("--shots", str(SHOTS))
        given = [*shots, "--method", method, "--backbone", str(weights), "--out", str(out)]
        return [*PROGRAM, "fit", str(photographs), *given]

    for method in options.methods:
        row = f"fit {method}, {size}"
        if options.short:
            yield row, lambda m=method: short_fit_seconds(fit(m), place(m), options.classes)
        else:
            yield row, lambda m=method: fit_seconds(fit(m), options.limit)
    adapter = small_adapter(options.place, weights, photographs)
    files = sorted(map(str, photographs.rglob("*.jpg")))
    for count in (1, 100):
        command = [*PROGRAM, "predict", str(adapter), *files[:count]]
        yield f"predict, {count} files", lambda c=command: (seconds(c), True)
    model = exported(options.place, adapter, photographs)
    for engine, count in product(("onnxruntime", "openvino"), (1, 100)):
        command = [*PROGRAM, "predict", str(model), *files[:count], "--engine", engine]
        yield f"predict --engine {engine}, {count} files", lambda c=command: (seconds(c), True)
    served = [*PROGRAM, "serve", str(adapter), "--port", "8741"]
    yield "serve, until ready", lambda: (until_ready(served, 8741), True)
    if options.peers:
        seconds([sys.executable, "-m", "benchmarks.encode_files", "--make", str(options.place)])
    for name in PEERS if options.peers else ():
        for count in (1, 100):
            command = [sys.executable, "-m", "benchmarks.encode_files", name, str(options.place), *files[:count]]
            yield f"{name}, {count} files", lambda c=command: (seconds(c), True)


def shown(found: dict[str, Row]) -> str:
    """Markdown, in the order of measurement."""
    lines = ["| what | seconds |", "|---|---|"]
    for name, row in found.items():
        middle = sorted(row["seconds"])[len(row["seconds"]) // 2]
        lines.append(f"| {name} | {'' if row['whole'] else '~ '}{middle:.{0 if middle >= 20 else 1}f} |")
    return "\n".join(lines)


def main() -> None:
    """Measure what is missing, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--place", type=Path, required=True)
    parser.add_argument("--methods", type=lambda text: text.split(","), default=list(METHODS))
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--limit", type=float, default=120.0)
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--show", action="store_true")
    options = parser.parse_args()
    kept = options.place / "waiting.json"
    result = json.loads(kept.read_text()) if kept.exists() else {**about(), "rows": {}}
    for name, measure in () if options.show else rows(options):
        while len(result["rows"].get(name, {}).get("seconds", ())) < options.repeats:
            spent, whole = measure()
            row = result["rows"].setdefault(name, {"seconds": [], "whole": whole})
            row["seconds"].append(round(spent, 2))
            kept.write_text(json.dumps(result, indent=1) + "\n")
            print(name, f"{spent:.1f} s", "" if whole else "(in part)", flush=True)
    print(shown(result["rows"]))


if __name__ == "__main__":
    main()
