"""The start of a command: `python -m benchmarks.start ADAPTER IMAGE [--onnx MODEL] [--repeats 5]`.

Whole processes, from their start to their end, beside `python -c pass` and `python -c "import torch"` in the same run;
all take turns. A row is the least wall time and the least processor time (user and system) of the repeats: the first
is what a person waits for on a quiet machine, the second is compared on one that others use. ADAPTER is a folder that
`daptune fit --backbone tiny` wrote, IMAGE any picture, MODEL what `daptune export ADAPTER` made of it.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage

from benchmarks.host import about, environment

WORDS = {
    "daptune --help": ["--help"],
    "daptune fit --help": ["fit", "--help"],
    "a mistyped command": ["fti", "."],
    "a mistyped flag": ["fit", ".", "--shts", "3"],
    "a mistyped method": ["fit", ".", "--method", "dabt"],
    "a mistyped option of the method": ["fit", ".", "--set", "inter_wieght=1"],
}
"""Commands that end before anything heavy is imported."""


def spent(command: list[str]) -> tuple[float, float]:
    """Wall and processor seconds of a process."""
    before, start = getrusage(RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, capture_output=True, env=environment(), check=False)
    wall, after = time.perf_counter() - start, getrusage(RUSAGE_CHILDREN)
    return wall, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def first_line(command: list[str]) -> tuple[float, float]:
    """Wall seconds until a process writes to stderr; it is ended then, so that its processor time is not known."""
    start = time.perf_counter()
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment()) as process:
        if process.stderr is not None:
            process.stderr.readline()
        wall = time.perf_counter() - start
        process.kill()
    return wall, float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("adapter", type=Path)
    parser.add_argument("image", type=Path)
    parser.add_argument("--onnx", type=Path, help="the adapter, exported")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    program = [sys.executable, "-m", "daptune"]
    commands = {"python -c pass": [sys.executable, "-c", "pass"]}
    commands["import torch"] = [sys.executable, "-c", "import torch"]
    commands |= {name: [*program, *words] for name, words in WORDS.items()}
    commands["daptune predict, one image"] = [*program, "predict", str(options.adapter), str(options.image)]
    if options.onnx is not None:
        commands["the same, exported"] = [*program, "predict", str(options.onnx), str(options.image)]
    begins = "daptune fit, until its first line"
    commands[begins] = [*program, "fit", "."]
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for _ in range(options.repeats):
        for name, command in commands.items():
            found[name].append(first_line(command) if name == begins else spent(command))
    least = {name: tuple(map(min, zip(*times, strict=True))) for name, times in found.items()}
    machine = about()
    print(f"{machine['processor']}, {machine['cores']} cores, Python {machine['python']}, best of {options.repeats}\n")
    print("| process | wall, s | processor, s | x `pass` | x `import torch` |\n|---|---|---|---|---|")
    for name, (wall, busy) in least.items():
        ratios = (busy / least[base][1] for base in ("python -c pass", "import torch"))
        print(f"| {name} | {wall:.2f} | {busy:.2f} | " + " | ".join(f"{ratio:.2f}" for ratio in ratios) + " |")


if __name__ == "__main__":
    main()
