"""How much memory there is, and how much a piece of work took at most. Linux tells all; elsewhere less is known."""

import contextlib
import sys
from pathlib import Path

import torch


def available_bytes() -> int | None:
    """Memory that programs may still take on this machine; None where the system does not say."""
    return _kilobytes("/proc/meminfo", "MemAvailable")


def forget_peak(device: str) -> None:
    """Begin to watch anew, where that can be done."""
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): the peak of the resident set starts over


def peak_bytes(device: str) -> int:
    """The most memory since `forget_peak`: of the process, or of the GPU that it works on."""
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
