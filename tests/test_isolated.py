"""A function of a file in a process with limits: what it says, and what it may not do."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from daptune import isolated
from daptune.isolated import try_first

MB = 10**6
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits on memory are Linux's")


def fine(path: str) -> None:
    sys.stdout.write("noise")
    os.write(1, b"more noise")
    Path(path).read_bytes()


def greedy(path: str) -> None:
    bytearray(400 * MB)


def busy(path: str) -> None:
    while True:
        pass


def asleep(path: str) -> None:
    time.sleep(60)


def crashes(path: str) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def leaves(path: str) -> None:
    raise SystemExit(3)


WAYS = pytest.mark.parametrize("way", ["_forked", "_started"])


@pytest.fixture
def tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str):  # type: ignore[no-untyped-def]
    monkeypatch.setattr(isolated, "_forked", getattr(isolated, way))
    file = tmp_path / "a file"
    file.write_text("x")
    return lambda name, path=file, seconds=5: try_first(
        f"{__name__}:{name}", str(path), memory=300 * MB, seconds=seconds
    )


@WAYS
def test_what_passes_is_silent_and_what_fails_is_said(tried, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:  # type: ignore[no-untyped-def]
    tried("fine")
    with pytest.raises(ValueError, match=r"No such file or directory"):
        tried("fine", tmp_path / "none")
    with pytest.raises(ValueError, match="it needs more memory than there is"):
        tried("greedy")
    with pytest.raises(ValueError, match="takes more than 300 MB and 5 seconds to read, or crashes its reader"):
        tried("crashes")
    with pytest.raises(ValueError):
        tried("leaves")
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


@WAYS
def test_time_is_limited_whether_it_computes_or_waits(tried, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match="takes more than 300 MB and 1 seconds to read, or"):
        tried("busy", seconds=1)
    monkeypatch.setattr(isolated, "_WAITING", -8)
    began = time.monotonic()
    with pytest.raises(ValueError, match=r"takes more than 300 MB and 1 seconds to read$"):
        tried("asleep", seconds=1)
    assert time.monotonic() - began < 30
