"""What the model of docs/scale.md is fed with: `python -m benchmarks.scale [--names 1000000] [--adapters 100000]`.

Processor time of a name that is looked at, of one of another share, of a row that is written and of one that is matched
when a run goes on, in each form of a list; then start, memory, listing and first answers of a server with so many real
folders of adapters, of which 100 are kept in memory. Writes JSON to benchmarks/results. Needs no network, and for
each 1,000 adapters 12 MB of disk.
"""

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from benchmarks.host import ROOT, processor_name
from daptune.adapter.store import make_record, save_adapter
from daptune.clip.backbone import load_backbone
from daptune.data.stream import Item
from daptune.methods import METHODS
from daptune.predict.inputs import Share, items
from daptune.predict.row_log import RowLog
from daptune.serve.limits import Limits
from daptune.serve.server import make_engine, read_sources

KEPT = 100  # adapters in memory; 1,000 by default
LINKS = 50_000  # names of one file; file systems have a limit
CLASSES = [f"kind {number}" for number in range(10)]


def seconds(work: Callable[[], object]) -> float:
    """Processor time of a call, in seconds."""
    began = time.process_time()
    work()
    return time.process_time() - began


def resident() -> float:
    """Memory of this process, in MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def of_names(count: int, folder: Path) -> dict[str, float]:
    """Microseconds of a name or row."""
    names = [f"/data/images/{number // 10_000:05}/{number:09}.jpg" for number in range(count)]
    (folder / "names.txt").write_text("\n".join(names) + "\n")
    (folder / "names.csv").write_text("\n".join(["path", *names]) + "\n")
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"path": names}), folder / "names.parquet")
    found: dict[str, float] = {}
    for form in ("txt", "csv", "parquet"):
        path = [str(folder / f"names.{form}")]
        found[f"looked at, {form}"] = seconds(lambda path=path: sum(1 for _ in items(path)))
        found[f"of other shares, {form}"] = seconds(
            lambda path=path: sum(1 for _ in items(path, share=Share("7/1000")))
        )
    rows = [{"file": name, "label": "annual crop land", "probability": 0.123456} for name in names]
    images = [Item(name, Path(name)) for name in names]

    def write() -> None:
        with RowLog(folder / "rows.jsonl", {"run": 1}) as log:
            for begin in range(0, count, 256):
                log.append(rows[begin : begin + 256])

    def match() -> None:
        with RowLog(folder / "rows.jsonl", {"run": 1}) as log:
            assert log.match(iter(images)) == count

    found["row written"], found["row matched"] = seconds(write), seconds(match)
    return {name: round(1e6 * value / count, 3) for name, value in found.items()}


def of_adapters(count: int, folder: Path) -> dict[str, float]:
    """Seconds and MB of a server with so many adapters."""
    backbone = load_backbone("tiny")
    method = METHODS["dapt"](backbone, CLASSES).eval()
    first = save_adapter(folder / "first", method, make_record(method, backbone))
    record = (first / "adapter.json").read_bytes()
    root = folder / "adapters"
    root.mkdir()
    for number in range(count):
        place = root / f"user-{number:06}"
        place.mkdir()
        (place / "adapter.json").write_bytes(record)
        if number % LINKS == 0:
            tensors = shutil.copy(first / "adapter.safetensors", place / "adapter.safetensors")
        else:
            os.link(tensors, place / "adapter.safetensors")
    before = resident()
    began = time.process_time()
    engine = make_engine(read_sources([root]), Limits(max_loaded=KEPT))
    found = {"start, s": time.process_time() - began, "memory of the index, MB": resident() - before}
    found["listing, s"] = seconds(engine.adapters)
    asked = [f"user-{number:06}" for number in np.random.default_rng(1).permutation(count)[: 3 * KEPT]]
    pixels = np.zeros((backbone.preprocess.size, backbone.preprocess.size, 3), np.uint8)
    before = resident()

    def ask(names: list[str]) -> float:
        """Milliseconds of an answer."""
        return 1000 * seconds(lambda: [engine.run([engine.open(name)], [pixels]) for name in names]) / len(names)

    found["first answer of one, ms"] = ask(asked)
    found["adapters in memory"] = engine.loaded
    found["memory of those, MB"] = resident() - before
    found["answer of one in memory, ms"] = ask(asked[-KEPT:])
    return {name: round(value, 3) for name, value in found.items()}


def main() -> None:
    """Measure both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", type=int, default=1_000_000)
    parser.add_argument("--adapters", type=int, default=100_000)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    result = {"date": f"{datetime.now(UTC):%Y-%m-%d}", "processor": processor_name(), "names": options.names}
    with tempfile.TemporaryDirectory() as folder:
        result["microseconds"] = of_names(options.names, Path(folder))
        print(json.dumps(result["microseconds"], indent=1), flush=True)
        result["adapters"] = options.adapters
        result["server"] = of_adapters(options.adapters, Path(folder))
    print(json.dumps(result["server"], indent=1))
    out = options.out or ROOT / "benchmarks" / "results" / f"{result['date']}-scale.json"
    out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
