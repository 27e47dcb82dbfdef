"""Films for tests: a second each red, green and blue."""

from pathlib import Path

import numpy as np

COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255))


def make_film(path: Path, *, size: tuple[int, int] = (64, 48), rate: int = 25) -> Path:
    """Of three seconds; needs PyAV."""
    import av

    with av.open(str(path), "w") as out:
        stream = out.add_stream("mpeg4", rate=rate)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for number in range(3 * rate):
            pixels = np.full((size[1], size[0], 3), COLOURS[number // rate], np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        out.mux(stream.encode(None))
    return path
