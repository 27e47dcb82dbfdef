"""Available memory and peak memory use. Complete on Linux only."""

import contextlib
import sys
from pathlib import Path

import torch


def available_bytes() -> int | None:
    """Available memory of this machine in bytes; None if the system does not report it."""
    return _kilobytes("/proc/meminfo", "MemAvailable")


def forget_peak(device: str) -> None:
    """Reset the peak, if the system supports it."""
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets the peak resident set size


def peak_bytes(device: str) -> int:
    """Peak memory in bytes since `forget_peak`, of the process or of its GPU."""
    if torch.device(device).type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    peak = _kilobytes("/proc/self/status", "VmHWM")
    if peak is not None or sys.platform == "win32":
        return peak or 0
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _kilobytes(path: str, key: str) -> int | None:
    with contextlib.suppress(OSError):
        for line in Path(path).read_text().splitlines():
            if line.startswith(f"{key}:"):
                return int(line.split()[1]) * 1024
    return None
