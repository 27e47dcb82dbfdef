"""Precision of the frozen towers.

fp32            everywhere
bf16            the frozen matrices and their products; 1.9 times faster on a CPU with bf16 instructions
                (docs/performance.md)
fp16-faithful   as in the official code of CoOp and DAPT, for reproduction
auto            bf16 if the hardware supports it, else fp32
"""

from pathlib import Path

import torch

from ..errors import BackboneError, suggest

PRECISIONS = ("auto", "fp32", "bf16", "fp16-faithful")
_CPUINFO = Path("/proc/cpuinfo")


def resolve_precision(precision: str, device: str | torch.device = "cpu") -> str:
    """Resolve "auto" for a device. Raises BackboneError for an unknown precision."""
    if precision == "int8":
        raise BackboneError(
            "precision int8 is for exported models: write one with `daptune export ADAPTER --images FOLDER`, and run "
            "it with --engine openvino."
        )
    if precision not in PRECISIONS:
        raise BackboneError(f"there is no precision {precision!r}.{suggest(precision, PRECISIONS)}")
    if precision != "auto":
        return precision
    return "bf16" if has_native_bf16(torch.device(device)) else "fp32"


def has_native_bf16(device: torch.device) -> bool:
    """Whether a device multiplies bf16 matrices in hardware, without conversion to float32."""
    if device.type == "cuda":
        # sm_80 is the first with bf16; torch emulates it on older GPUs
        return torch.cuda.is_available() and torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return False
    return bool(cpu_flags() & {"avx512_bf16", "amx_bf16", "bf16"})  # the last is ARM's


def cpu_flags(cpuinfo: Path = _CPUINFO) -> frozenset[str]:
    """CPU features reported by the operating system; empty if it reports none (macOS, Windows)."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    named = (line.partition(":")[2].split() for line in lines if line.lower().startswith(("flags", "features")))
    return frozenset(next(named, ()))
