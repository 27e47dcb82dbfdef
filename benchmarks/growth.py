"""How time and memory grow: `python -m benchmarks.growth` measures and draws docs/growth.svg; `--draw` draws alone.

Time and peak memory against classes, context tokens, visual tokens, images in a batch and files to predict, of the
straightforward algorithm (one pass, float32) and of daptune, each point in a process of its own as in `make bench`.
Needs matplotlib to draw, no network, 16 GB of memory.
"""

import argparse
import json
import os
import statistics
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import run
from benchmarks.host import ROOT

# panel -> what grows, over which sizes, in which case; the reference stops where one pass takes more than 16 GB
SERIES: dict[str, dict[str, Any]] = {
    "text features and gradient": {
        "grows": "classes", "sizes": (10, 100, 300, 1000, 3000), "case": {"row": "text"}, "most": 300,
    },
    "text features and gradient, 100 classes": {
        "grows": "tokens", "sizes": (1, 16, 64), "case": {"row": "text", "classes": 100}, "axis": "context tokens",
    },
    "image features and gradient, 4 images": {
        "grows": "tokens", "sizes": (1, 16, 64, 192), "case": {"row": "vision", "batch": 4, "backward": True},
        "axis": "visual tokens",
    },
    "a DAPT step, 100 classes": {
        "grows": "batch", "sizes": (1, 4, 16, 32), "case": {"row": "step", "classes": 100},
        "axis": "images in a batch",
    },
    "prediction of JPEG files": {"grows": "images", "sizes": (16, 64, 256), "case": {"row": "files"}, "axis": "files"},
}  # fmt: skip
SIDES = (("reference", "fp32"), ("daptune", "fp32"), ("daptune", "bf16"))
STYLES = dict(zip(SIDES, (("#d55e00", "s"), ("#0072b2", "o"), ("#009e73", "^")), strict=True))  # Okabe and Ito's
RESULTS = ROOT / "benchmarks" / "results"


def points(repeats: int) -> list[dict[str, Any]]:
    """Every point: its panel, side, precision and size, median seconds and peak memory."""
    found = []
    for panel, series in SERIES.items():
        for side, precision in SIDES:
            if precision not in run.settings["precisions"]:
                continue
            for size in series["sizes"]:
                if side == "reference" and size > series.get("most", size):
                    continue
                case = {**series["case"], series["grows"]: size, "side": side, "precision": precision}
                often = {"repeats": 1, "warmup": 0} if side == "reference" else {"repeats": repeats}
                result = run.measure(case | often)[0]
                point = {"panel": panel, "side": side, "precision": precision, "size": size}
                found.append(point | {"seconds": statistics.median(result["seconds"]), "gb": result["peak_gb"]})
                sys.stderr.write(f"{found[-1]}\n")
    return found


def draw(rows: list[dict[str, Any]], target: Path) -> None:
    """Seconds above, on a logarithmic axis, and memory below, on one from 0; a column a panel."""
    import matplotlib.pyplot as plt
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    plt.rcParams.update({"svg.hashsalt": "daptune", "svg.fonttype": "none"})  # the same file each time, a small one
    figure, axes = plt.subplots(2, len(SERIES), figsize=(15, 6), layout="constrained", sharex="col")
    for column, (panel, series) in zip(axes.T, SERIES.items(), strict=True):
        for (side, precision), (colour, marker) in STYLES.items():
            own = [row for row in rows if (row["panel"], row["side"], row["precision"]) == (panel, side, precision)]
            for axis, quantity in zip(column, ("seconds", "gb"), strict=True):
                label = "straightforward, fp32" if side == "reference" else f"daptune, {precision}"
                sizes, heights = [row["size"] for row in own], [row[quantity] for row in own]
                axis.semilogx(sizes, heights, marker + "-", color=colour, markersize=4, label=label)
        column[0].set_yscale("log")
        column[0].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        column[0].yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        column[0].yaxis.set_minor_formatter(NullFormatter())
        column[1].set_ylim(0)
        for axis in column:
            axis.spines[["top", "right"]].set_visible(False)
            axis.grid(True, color="0.9")
            axis.set_xticks(series["sizes"], [f"{size:,}" for size in series["sizes"]], minor=False)
            axis.minorticks_off()
        column[0].set_title(panel, fontsize=9)
        column[1].set_xlabel(series.get("axis", series["grows"]))
    axes[0, 0].set_ylabel("seconds")
    axes[1, 0].set_ylabel("peak memory of the process, GB")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), frameon=False, loc="outside lower center", ncols=3)
    figure.savefig(target, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=3, help="of daptune, after a warm-up; the reference runs once")
    parser.add_argument("--threads", type=int, help="threads of torch (default: its own choice)")
    parser.add_argument("--draw", action="store_true", help="only draw, from the newest file in benchmarks/results")
    options = parser.parse_args()
    if not options.draw:
        run.settings.update(threads=options.threads, clock="wall", precisions=run.native_precisions())
        about = run.machine(options.repeats) | run.settings
        stamp = datetime.now(UTC)
        name = f"{stamp:%Y-%m-%d}-{'-'.join(about['processor'].lower().split())}-growth.json"
        whole = {"date": stamp.isoformat(), "machine": about, "points": points(options.repeats)}
        (RESULTS / name).write_text(json.dumps(whole, indent=1) + "\n")
    newest = max(RESULTS.glob("*-growth.json"))
    draw(json.loads(newest.read_text())["points"], ROOT / "docs" / "growth.svg")
    print(f"docs/growth.svg, of {os.path.relpath(newest)}")


if __name__ == "__main__":
    main()
