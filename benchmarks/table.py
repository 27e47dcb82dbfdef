"""Results as the table of docs/performance.md: `python -m benchmarks.table benchmarks/results/FILE.json`."""

import json
import statistics
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

LABELS = {
    "text-10": "text features and gradient, 10 classes",
    "text-100": "100 classes",
    "text-1000": "1,000 classes",
    "text-21841": "21,841 classes",
    "vision-1": "image features, 1 image",
    "vision-8": "8 images",
    "vision-32": "32 images",
    "vision-1-backward": "image features and gradient, 1 image",
    "vision-8-backward": "8 images",
    "vision-32-backward": "32 images",
    "step-4": "a whole DAPT step, 100 classes, batch 4",
    "step-8": "batch 8",
    "step-32": "batch 32",
    "step-32-1000": "1,000 classes, batch 32",
    "cocoop-8": "a whole step of CoCoOp, 100 classes, batch 8",
    "plot-8": "PLOT, batch 8",
    "coop-8": "CoOp, batch 8",
    "vpt-8": "VPT, batch 8",
    "maple-8": "MaPLe, batch 8",
    "tcp-8": "TCP, batch 8",
    "mmrl-8": "MMRL, batch 8",
    "two_sfs-8": "2SFS, batch 8",
    "prototypes-64": "prototypes of 64 images",
    "zero-shot-1000": "zero-shot features, 1,000 classes",
    "files-1000": "prediction of 1,000 JPEG files",
}
COLUMNS = ("row", "precision", "reference, s", "daptune, s", "times faster", "of the rate", "GB", "difference")


def seconds(side: dict[str, Any] | None) -> str:
    """Median to three digits, with half the range from the smallest to the largest where it ran more than once."""
    if side is None:
        return ""
    values = side["seconds"]
    median, half = statistics.median(values), (max(values) - min(values)) / 2
    return rounded(median) + (f" ± {100 * half / median:.0f}%" if len(values) > 1 else "")


def rounded(value: float) -> str:
    """To three digits, or whole above them."""
    digits = 3 if value < 0.1 else 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{digits}f}"


def memory(row: dict[str, Any]) -> str:
    ours, reference = f"{row['ours']['peak_gb']:.1f}", row.get("reference")
    if reference is None:
        return ours
    pieces = f" ({reference['peak_gb']:.1f} in pieces)" if "one_pass_gb" in reference else ""
    return f"{reference.get('one_pass_gb', reference['peak_gb']):.{0 if pieces else 1}f}{pieces} and {ours}"


def table(rows: Iterable[dict[str, Any]]) -> list[str]:
    """Lines of Markdown; what the precisions of a row have in common stands once."""
    lines, last = ["| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|"], ""
    for row in rows:
        name = row["name"]
        if name in LABELS:
            first = name != last
            difference = max(row["differences"].values()) if row.get("differences") else None
            cells = [LABELS[name] if first else "", row["precision"], seconds(row.get("reference")) if first else ""]
            cells += [seconds(row["ours"]), f"{row['ratio']:.1f}" if "ratio" in row else "", f"{row['rate_share']:.0%}"]
            cells += [memory(row), "" if difference is None else f"{difference:.0e}"]
            lines.append("| " + " | ".join(cells) + " |")
            last = name
    return lines


if __name__ == "__main__":
    print(*table(json.loads(Path(sys.argv[1]).read_text())["rows"]), sep="\n")
