"""The machine that is measured on: its processor, the memory that a process took, and how to start one."""

import json
import os
import platform
import resource
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def environment() -> dict[str, str]:
    """That of a process which imports this checkout, and what was there to import."""
    paths = [str(ROOT / "src"), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def processor_name() -> str:
    """As the operating system calls it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [text.split(":")[1].strip() for text in lines if text.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def about() -> dict[str, Any]:
    """Processor, cores, and the version of Python."""
    return {"processor": processor_name(), "cores": os.cpu_count(), "python": platform.python_version()}


def keep(name: str, found: dict[str, Any], out: Path | None = None) -> None:
    """Write what was measured, with the machine and the day, to `out` or benchmarks/results/<day>-<name>.json."""
    day = f"{datetime.now(UTC):%Y-%m-%d}"
    out = out or ROOT / "benchmarks" / "results" / f"{day}-{name}.json"
    out.write_text(json.dumps(about() | {"date": day} | found, indent=1) + "\n")


def gigabytes() -> float:
    """Peak resident memory of this process so far, in GB (10^9 bytes)."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count what the parent had when it started this process
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e9
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e9  # macOS counts in bytes, others in KiB
