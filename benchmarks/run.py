"""The speed table: `make bench`, or `python -m benchmarks.run [--only text-100,step-8] [--repeats 5]`.

Each line puts daptune beside the straightforward algorithm (benchmarks/reference.py), measured in the same run on the
same machine: seconds (median, smallest to largest), how many times faster, the share of the machine's measured
matrix-product rate that daptune reaches counting useful operations only, peak memory of the whole process, and the
largest difference of the results: features absolute, gradients relative to the largest entry of the reference's.
Two rows are of their own kind: `accuracy` (benchmarks/accuracy.py) and `start-up`, of importing and of `--help`.
Prints the table, writes benchmarks/results/<date>-<processor>.json. Needs no network; 16 GB of memory for all rows.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import accuracy, workload
from benchmarks.host import ROOT, environment
from benchmarks.host import about as host_about

GRADIENTS = ("context", "prompts", "network")
PIECE = 100  # classes that the reference encodes at a time where all of them do not fit in memory

# row -> what is measured; every row in the precisions named. `reference` overrides the case on the reference's side.
TABLE: dict[str, dict[str, Any]] = {
    "text-10": {"row": "text", "classes": 10, "precisions": ("fp32", "bf16")},
    "text-100": {"row": "text", "classes": 100, "precisions": ("fp32", "bf16")},
    "text-1000": {
        "row": "text",
        "classes": 1000,
        "precisions": ("fp32", "bf16"),
        "reference": {"piece": PIECE, "repeats": 1, "warmup": 0},
    },
    "text-21841": {
        "row": "text",
        "classes": 21841,
        "precisions": ("fp32", "bf16"),
        "reference": None,
        "repeats": 1,
        "warmup": 0,
    },
    **{
        f"vision-{batch}{'-backward' * backward}": {
            "row": "vision",
            "batch": batch,
            "backward": backward,
            "precisions": ("fp32", "bf16"),
        }
        for backward in (False, True)
        for batch in (1, 8, 32)
    },
    "step-4": {"row": "step", "classes": 100, "batch": 4, "precisions": ("fp32", "bf16")},
    "step-8": {"row": "step", "classes": 100, "batch": 8, "precisions": ("fp32", "bf16")},
    "step-32": {
        "row": "step",
        "classes": 100,
        "batch": 32,
        "precisions": ("fp32", "bf16"),
        "reference": {"repeats": 2},
    },
    "step-32-1000": {
        "row": "step",
        "classes": 1000,
        "batch": 32,
        "precisions": ("fp32", "bf16"),
        "reference": {"piece": PIECE, "repeats": 1},
    },
    "cocoop-8": {
        "row": "method_step",
        "method": "cocoop",
        "classes": 100,
        "batch": 8,
        "precisions": ("fp32", "bf16"),
        "reference": {"repeats": 1, "warmup": 0},
    },
    "plot-8": {
        "row": "method_step",
        "method": "plot",
        "classes": 100,
        "batch": 8,
        "precisions": ("fp32", "bf16"),
        "reference": {"repeats": 2},
    },
    **{
        f"{method}-8": {
            "row": "method_step",
            "method": method,
            "classes": 100,
            "batch": 8,
            "precisions": ("fp32", "bf16"),
        }
        for method in ("coop", "vpt", "maple", "tcp", "mmrl", "two_sfs")
    },
    "prototypes-64": {"row": "prototypes", "batch": 64, "precisions": ("fp32", "bf16"), "reference": {"repeats": 2}},
    "zero-shot-1000": {
        "row": "zero_shot",
        "classes": 1000,
        "precisions": ("fp32", "bf16"),
        "reference": {"repeats": 1, "warmup": 0},
    },
    "files-1000": {
        "row": "files",
        "images": 1000,
        "repeats": 1,
        "warmup": 0,
        "precisions": ("fp32", "bf16"),
    },
}

OTHERS = ("accuracy", "start-up")  # benchmarks/accuracy.py; `import daptune` and `daptune --help`


# what every case of this run shares: "threads"; "clock" picks the seconds that count; "precisions" those measured
settings: dict[str, Any] = {}


def measure(case: dict[str, Any]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Run one case in a fresh process -> (its JSON, its tensors)."""
    with tempfile.TemporaryDirectory() as folder:
        tensors = Path(folder, "tensors.npz")
        case = {"threads": settings["threads"], **case}
        command = [sys.executable, "-m", "benchmarks.measure", json.dumps(case), str(tensors)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment(), check=False)
        if done.returncode:
            raise SystemExit(f"{case} ended with code {done.returncode}:\n{done.stderr[-2000:]}")
        result = json.loads(done.stdout.splitlines()[-1])
        if settings["clock"] == "processor":
            result["wall_seconds"], result["seconds"] = result["seconds"], result["processor_seconds"]
        with np.load(tensors) as loaded:
            return result, dict(loaded)


def useful_operations(case: dict[str, Any]) -> float:
    """Multiplications and additions that the result needs: forward and the backward of the prompts, no padding."""
    if case.get("method") in ("tcp", "mmrl"):
        return upper_operations(case)
    size, total = workload.VIT_B16, 0.0
    # contexts, tokens of each and of frozen words behind it, visual tokens where these learn
    own, both = case.get("method", ""), (1, workload.CONTEXT_TOKENS, workload.VISION_TOKENS)
    contexts, words, visual = {
        "coop": (1, workload.CONTEXT_TOKENS, 0),
        "vpt": (0, 0, workload.VISION_TOKENS),
        "cocoop": (case.get("batch", 1), 4, 0),
        "plot": (4, 16, 0),
        "maple": (1, 4, 2),
        "two_sfs": (1, 4, 0),
        "zero_shot": (1, 4, 0),
        "prototypes": (0, 0, 0),
        "files": (0, 0, 0),
    }.get(own or case.get("row"), both)
    contexts, words, visual = contexts, case.get("tokens", words), case.get("tokens", visual)

    def tower(kind: str, tokens: int, pairs: int, read: int) -> float:
        """`tokens` pass the tower, `pairs` (query, key) meet, the last block is read at `read` tokens."""
        width, layers, mlp = size[f"{kind}_width"], size[f"{kind}_layers"], size[f"{kind}_mlp"]
        token, keys_values = 4 * width**2 + 2 * width * mlp, 2 * width**2
        products = (layers - 1) * tokens * token + tokens * keys_values + read * (token - keys_values)
        return 2 * products + (layers - 1) * 4 * pairs * width  # attention forward: two products

    if "classes" in case:
        prefix = 1 + words
        lengths = [len(name) + 2 for name in workload.class_tokens(case["classes"])]
        pairs = prefix * (prefix + 1) // 2 + sum(n * prefix + n * (n + 1) // 2 for n in lengths)
        passes = 1 if case.get("row") == "zero_shot" else 2
        total += contexts * passes * tower("text", prefix + sum(lengths), pairs, len(lengths))
    if images := case.get("batch", case.get("images")):
        patches = (size["image_size"] // size["patch_size"]) ** 2
        length = 1 + visual + patches
        passes = 2 if (visual or own == "two_sfs") and case.get("backward", True) else 1
        read = 1 + patches if case.get("method") == "plot" else 1
        total += passes * images * tower("vision", length, length**2, read)
        total += images * 2 * patches * 3 * size["patch_size"] ** 2 * size["vision_width"]
    return total


def upper_operations(case: dict[str, Any]) -> float:
    """`useful_operations` of a step of TCP or MMRL.

    Below MMRL's tokens, images run forward alone and texts not at all; its frozen image features need the upper blocks
    once more. TCP's context learns, and so the lower blocks run back too.
    """
    size, mmrl = workload.VIT_B16, case["method"] == "mmrl"

    def blocks(kind: str, count: int, tokens: int, pairs: int) -> float:
        width, mlp = size[f"{kind}_width"], size[f"{kind}_mlp"]
        return count * (2 * tokens * (4 * width**2 + 2 * width * mlp) + 4 * pairs * width)

    def last(kind: str, tokens: int, read: int) -> float:
        width, mlp = size[f"{kind}_width"], size[f"{kind}_mlp"]
        return 2 * (2 * tokens * width**2 + read * (2 * width**2 + 2 * width * mlp))

    def pairs(prefix: int, lengths: list[int]) -> int:
        return prefix * (prefix + 1) // 2 + sum(n * prefix + n * (n + 1) // 2 for n in lengths)

    names = [len(name) + 2 for name in workload.class_tokens(case["classes"])]
    patches = (size["image_size"] // size["patch_size"]) ** 2
    length, images = 1 + patches, case["batch"]
    embedding = 2 * patches * 3 * size["patch_size"] ** 2 * size["vision_width"]
    if not mmrl:  # two thirds of the text with a context that learns, a third with each class's tokens
        own = [n + 4 for n in names]
        text = blocks("text", 8, 5 + sum(names), pairs(5, names)) + blocks("text", 3, 1 + sum(own), pairs(1, own))
        text += last("text", 1 + sum(own), len(own))
        return 2 * text + images * (blocks("vision", 11, length, length**2) + last("vision", length, 1) + embedding)
    text = blocks("text", 6, 10 + sum(names), pairs(10, names)) + last("text", 10 + sum(names), len(names))
    learns = blocks("vision", 6, length + 5, (length + 5) ** 2) + last("vision", length + 5, 6)
    frozen = blocks("vision", 5 + 6, length, length**2) + last("vision", length, 1)
    return 2 * text + images * (2 * learns + frozen + embedding)


def differences(ours: dict[str, np.ndarray], reference: dict[str, np.ndarray]) -> dict[str, float]:
    """Largest difference by tensor: gradients (of GRADIENTS) relative to the reference's largest entry."""
    found = {}
    for name, value in ours.items():
        if name in reference:
            scale = np.abs(reference[name]).max() if name in GRADIENTS else 1.0
            found[name] = float(np.abs(value - reference[name]).max() / scale)
    return found


def machine(repeats: int) -> dict[str, Any]:
    """Processor, versions, and the matrix-product rates in 10^9 operations a second: that of torch's product and that
    of one with a frozen matrix as daptune keeps it (best of the runs), and the higher of both, which is the limit."""
    found = host_about()
    for precision in settings["precisions"]:
        for kind, packed in (("product", False), ("packed", True)):
            case = {"row": "rate", "precision": precision, "packed": packed, "repeats": 4 * repeats, "warmup": 3}
            found[f"{precision}_{kind}_gflops"] = 2 * 2048**3 / min(measure(case)[0]["seconds"]) / 1e9
        found[f"{precision}_gflops"] = max(found[f"{precision}_{kind}_gflops"] for kind in ("product", "packed"))
    return found


def start_up(repeats: int) -> list[dict[str, Any]]:
    """Seconds of `import daptune` inside a process, and of the whole `daptune --help`."""
    script = "import time,sys;s=time.perf_counter();import daptune;print(time.perf_counter()-s,'torch' in sys.modules)"
    rows: list[dict[str, Any]] = []
    commands = {"import": [sys.executable, "-c", script], "help": [sys.executable, "-m", "daptune", "--help"]}
    for name, command in commands.items():
        seconds, torch_imported = [], False
        for _ in range(repeats + 1):
            start = datetime.now(UTC)
            done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
            wall = (datetime.now(UTC) - start).total_seconds()
            if done.returncode:
                break
            if name == "import":
                printed, flag = done.stdout.split()
                wall, torch_imported = float(printed), flag == "True"
            seconds.append(wall)
        if len(seconds) > 1:
            row = {"name": name, "precision": "-", "ours": {"seconds": seconds[1:]}, "torch_imported": torch_imported}
            rows.append(row)
    return rows


def benchmark(name: str, repeats: int, rates: dict[str, Any], only_ours: bool) -> list[dict[str, Any]]:
    """The lines of one row of TABLE: the reference once, ours in each precision."""
    case = {"repeats": repeats, **TABLE[name]}
    precisions, override = case.pop("precisions"), case.pop("reference", {})
    reference = None
    if override is not None and not only_ours:
        reference = measure({**case, "side": "reference", "precision": "fp32", **override})
    rows = []
    for precision in (each for each in precisions if each in settings["precisions"]):
        result, tensors = measure({**case, "side": "daptune", "precision": precision})
        median = statistics.median(result["seconds"])
        row = {"name": name, "precision": precision, "ours": result}
        row["product_rate_gflops"] = rates[f"{precision}_gflops"]
        row["rate_share"] = useful_operations(case) / median / 1e9 / row["product_rate_gflops"]
        if reference:
            row["reference"] = reference[0]
            row["ratio"] = statistics.median(reference[0]["seconds"]) / median
            row["differences"] = differences(tensors, reference[1])
        rows.append(row)
        sys.stderr.write(f"{name} {precision}: {line(row)}\n")
    return rows


def full_pass_memory(rows: list[dict[str, Any]]) -> None:
    """The reference ran `text-1000` in pieces: what one pass would take lies on the line through 10 and 100 classes."""
    found = {row["name"]: row for row in rows if "reference" in row and row["name"].startswith("text-")}
    if {"text-10", "text-100", "text-1000"} <= found.keys():
        small, large = (found[name]["reference"]["peak_gb"] for name in ("text-10", "text-100"))
        for row in rows:
            if row["name"] == "text-1000":
                row["reference"] = {**row["reference"], "one_pass_gb": large + 900 * (large - small) / 90}


def native_precisions() -> list[str]:
    from daptune.clip.precision import resolve_precision

    return ["fp32", "bf16"] if resolve_precision("auto") == "bf16" else ["fp32"]


def line(row: dict[str, Any]) -> str:
    def seconds(side: dict[str, Any] | None) -> str:
        if side is None:
            return "-"
        values = side["seconds"]
        if not values:
            return "never"
        return f"{statistics.median(values):.3f} ({min(values):.3f}-{max(values):.3f})"

    def memory(side: dict[str, Any] | None) -> str:
        if side is None or "peak_gb" not in side:
            return "-"
        one_pass = f" (one pass ~{side['one_pass_gb']:.0f})" if "one_pass_gb" in side else ""
        return f"{side['peak_gb']:.2f}{one_pass}"

    reference = row.get("reference")
    equal = ", ".join(f"{name} {value:.0e}" for name, value in row.get("differences", {}).items())
    ratio = f"{row['ratio']:.1f}" if "ratio" in row else "-"
    share = f"{row['rate_share']:.0%}" if "rate_share" in row else "-"
    cells = (row["name"], row["precision"], seconds(reference), seconds(row["ours"]), ratio, share)
    return "| " + " | ".join((*cells, memory(reference), memory(row["ours"]), equal or "-")) + " |"


COLUMNS = ("row", "precision", "reference s (min-max)", "daptune s (min-max)", "times faster", "of product rate")
COLUMNS += ("reference GB", "daptune GB", "largest difference")
HEADER = "| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", help="comma-separated rows: " + ", ".join([*TABLE, *OTHERS]))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, help="threads of torch (default: its own choice)")
    parser.add_argument(
        "--clock",
        choices=("wall", "processor"),
        default="wall",
        help="'processor' with --threads 1 compares on a machine that others use too",
    )
    parser.add_argument("--precisions", help="fp32,bf16 (default: bf16 only where the processor has its instructions)")
    parser.add_argument("--ours", action="store_true", help="leave the reference out")
    parser.add_argument("--out", type=Path, help="where the JSON goes (default: benchmarks/results)")
    options = parser.parse_args()
    chosen = options.only.split(",") if options.only else [*TABLE, *OTHERS]
    if unknown := set(chosen) - {*TABLE, *OTHERS}:
        parser.error(f"no such row: {', '.join(sorted(unknown))}; there are {', '.join([*TABLE, *OTHERS])}")
    precisions = options.precisions.split(",") if options.precisions else native_precisions()
    settings.update(threads=options.threads, clock=options.clock, precisions=precisions)
    about = machine(options.repeats) | settings
    rows: list[dict[str, Any]] = []
    for name in chosen:
        if name == "start-up":
            rows += start_up(4 * options.repeats)
        elif name == "accuracy":
            rows.append(accuracy.as_row(list(accuracy.seeds(shots=4, chosen=[1, 2, 3]))))
        else:
            rows += benchmark(name, options.repeats, about, options.ours)
    print(
        f"{about['processor']}, {about['cores']} cores: "
        + ", ".join(f"{about[f'{name}_gflops']:.0f} GFLOP/s {name}" for name in precisions)
        + " (products of 2048 x 2048 matrices, best of the run)\n"
    )
    stamp = datetime.now(UTC)
    processor = "-".join(about["processor"].lower().split())
    target = options.out or ROOT / "benchmarks" / "results" / f"{stamp:%Y-%m-%d}-{processor}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():  # rows that were not asked for this time stay
        measured = {row["name"] for row in rows}
        kept = [row for row in json.loads(target.read_text())["rows"] if row["name"] not in measured]
        order = [*TABLE, "accuracy", "import", "help"]
        rows = sorted(kept + rows, key=lambda row: order.index(row["name"]))
    full_pass_memory(rows)
    target.write_text(json.dumps({"date": stamp.isoformat(), "machine": about, "rows": rows}, indent=1) + "\n")
    print(HEADER, *map(line, rows), sep="\n")
    print(f"\nwritten: {os.path.relpath(target)}")


if __name__ == "__main__":
    main()
