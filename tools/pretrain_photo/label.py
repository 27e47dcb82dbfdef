"""Label the packed photographs: the teacher's pooled features, in fp16. Stops and resumes at any place."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from teacher import WIDTH, compiled

BATCH = 64
CHUNK = 50 * BATCH


def main() -> None:
    """Write `features.npy` beside `pixels.npy`, and how far it got in `labelled.txt`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--packed", type=Path, required=True)
    parser.add_argument("--side", type=int, default=160, help="resolution at which the teacher looks")
    options = parser.parse_args()
    torch.set_num_threads(1)
    pixels = np.load(options.packed / "pixels.npy", mmap_mode="r")
    progress, target = options.packed / "labelled.txt", options.packed / "features.npy"
    done = int(progress.read_text()) if progress.exists() else 0
    if done == 0:
        np.lib.format.open_memmap(target, "w+", np.float16, (len(pixels), WIDTH)).flush()
    features = np.load(target, mmap_mode="r+")
    teacher = compiled(options.side)
    began, first = time.time(), done
    with torch.no_grad():
        while done < len(pixels):
            end = min(done + CHUNK, len(pixels))
            for start in range(done, end, BATCH):
                batch = torch.from_numpy(np.array(pixels[start : min(start + BATCH, end)]))
                full = torch.cat([batch, batch[:1].expand(BATCH - len(batch), -1, -1, -1)])  # one compiled shape
                features[start : start + len(batch)] = teacher(full)[: len(batch)].half().numpy()
            features.flush()
            done = end
            progress.write_text(str(done))
            print(f"{done} of {len(pixels)}, {(done - first) / (time.time() - began):.0f} pictures/s", flush=True)


if __name__ == "__main__":
    main()
