"""What libraries say of odd files does not reach stderr, and is told in one line."""

import io
import logging
import random
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from daptune.data.images import decode
from daptune.data.quiet import telling
from daptune.errors import DataError

SCRIPT = """
import logging
import sys
logging.getLogger("daptune").addHandler(logging.StreamHandler())  # without the word of others, as the command line
from pathlib import Path
from daptune.data.images import decode
from daptune.data.quiet import telling
from daptune.errors import DataError
read = 0
with telling():
    for path in sorted(Path(sys.argv[1]).iterdir()):
        try:
            decode(path)
            read += 1
        except DataError as error:
            assert "decoder error" not in str(error)
print(read)
"""


def odd_tiffs(folder: Path) -> int:
    """Damaged TIFF files, of which libtiff and Pillow complain; how many there are."""
    pixels = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))
    count = 0
    for kind in ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits"):
        stream = io.BytesIO()
        pixels.save(stream, "TIFF", compression=kind)
        for seed in range(25):
            rng, content = random.Random(seed), bytearray(stream.getvalue())
            for _ in range(rng.randint(1, 12)):
                content[rng.randrange(8, len(content))] = rng.randrange(256)
            (folder / f"{kind}{seed}.tif").write_bytes(content)
            count += 1
    return count


def truncated_tag(value: int) -> bytes:
    """A TIFF that Pillow reads with a warning: a tag points beyond its end."""
    stream = io.BytesIO()
    Image.new("RGB", (4, 4), (value, 0, 0)).save(stream, "TIFF", software="x" * 20)
    content = bytearray(stream.getvalue())
    entry = content.index((305).to_bytes(2, "little") + (2).to_bytes(2, "little"))
    content[entry + 4 : entry + 8] = (1 << 24).to_bytes(4, "little")
    return bytes(content)


def test_nothing_of_theirs_reaches_stderr(tmp_path: Path) -> None:
    """In a process of its own, because libtiff writes to descriptor 2."""
    count = odd_tiffs(tmp_path)
    (tmp_path / "read.tif").write_bytes(truncated_tag(1))
    done = subprocess.run([sys.executable, "-c", SCRIPT, tmp_path], capture_output=True, text=True, check=True)
    assert 0 < int(done.stdout) < count + 1
    lines = done.stderr.splitlines()
    assert len(lines) == 1 and "damaged or unusual, and read as far as possible: the first, " in lines[0]
    assert str(tmp_path) in lines[0] and "site-packages" not in lines[0]


def test_odd_files_are_counted_in_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    paths = [tmp_path / f"{number}.tif" for number in range(3)]
    for _ in range(2):  # told once
        with telling():
            for number, path in enumerate(paths):
                path.write_bytes(truncated_tag(number))
                assert decode(path).getpixel((0, 0)) == (number, 0, 0)
                decode(path)  # counts once
    (line,) = caplog.messages
    assert line.startswith("3 images are damaged or unusual") and str(tmp_path / "0.tif") in line


def test_others_are_warned_as_before(tmp_path: Path) -> None:
    """Pillow in the hands of others, and in other threads, still says what it has to say."""
    path = tmp_path / "x.tif"
    path.write_bytes(truncated_tag(9))
    decode(path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        decode(path)
        assert not caught
        with Image.open(path) as image:
            image.load()
        assert caught
        told = len(caught)
        thread = threading.Thread(target=lambda: Image.open(path).load())
        thread.start()
        thread.join()
        assert len(caught) > told


def test_a_failed_decoder_is_said_in_words(tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "TIFF", compression="tiff_adobe_deflate")
    path.write_bytes(stream.getvalue().replace(b"\x78\x9c", b"\xff\xff"))
    with pytest.raises(DataError, match=r"x\.tif: damaged: its pixels cannot be decoded\.$"):
        decode(path)
    assert logging.getLogger("PIL").handlers
