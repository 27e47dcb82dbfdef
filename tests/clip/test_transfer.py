"""Batches go to a GPU pinned and on a stream of their own; on a processor they stay the objects that they are."""

from contextlib import contextmanager
from typing import Any

import pytest
import torch

from daptune.clip.transfer import Transfer


def test_on_a_processor_nothing_is_copied() -> None:
    images, labels = torch.zeros(2, 3), torch.zeros(2)
    moved = Transfer(torch.device("cpu"))(images, labels)
    assert moved[0] is images and moved[1] is labels


class StandIn:
    """A tensor that tells what is asked of it."""

    def __init__(self, log: list[Any], streams: list[str], device: str) -> None:
        self.log, self.streams, self.device = log, streams, torch.device(device)

    def pin_memory(self) -> "StandIn":
        assert self.device.type == "cpu", "what is on a GPU cannot be pinned"
        self.log.append("pin")
        return self

    def to(self, device: torch.device, *, non_blocking: bool) -> "StandIn":
        self.log.append(("copy", self.streams[-1], non_blocking))
        return StandIn(self.log, self.streams, str(device))

    def record_stream(self, stream: Any) -> None:
        self.log.append(("kept for", stream.name))


class Stream:
    def __init__(self, name: object, log: list[Any]) -> None:
        self.name, self.log = str(name), log

    def wait_stream(self, other: "Stream") -> None:
        self.log.append((self.name, "waits for", other.name))


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> tuple[list[Any], list[str]]:
    """What happens, in order, and the streams that work is put on, where torch.cuda is a stand-in."""
    log: list[Any] = []
    streams = ["main"]

    @contextmanager
    def inside(stream: Stream) -> Any:
        streams.append(stream.name)
        yield
        streams.pop()

    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream("copies", log))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream(streams[-1], log))
    monkeypatch.setattr(torch.cuda, "stream", inside)
    return log, streams


def test_to_a_gpu_copies_are_pinned_and_run_beside_the_step(gpu: tuple[list[Any], list[str]]) -> None:
    log, streams = gpu
    (moved,) = Transfer(torch.device("cuda:0"))(StandIn(log, streams, "cpu"))  # type: ignore[arg-type]
    assert moved.device == torch.device("cuda:0")
    assert log == ["pin", ("copy", "copies", True), ("main", "waits for", "copies"), ("kept for", "main")]


def test_what_is_on_the_gpu_stays_there(gpu: tuple[list[Any], list[str]]) -> None:
    log, streams = gpu
    there = StandIn(log, streams, "cuda:0")
    assert Transfer(torch.device("cuda:0"))(there) == (there,)  # type: ignore[arg-type]
    assert "pin" not in log and not any("copy" in entry for entry in log)
