"""Damaged files at every reader: an answer or one line, within limits, and no code, write or connection."""

import os
import random
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from daptune.clip.backbone import Backbone, load_backbone
from daptune.errors import DaptuneError
from daptune.text import UNSAFE

from .child import Outcome, in_child
from .mutations import mutate
from .readers import Case, cases

BATCH = 10
"""Inputs of one child."""
MEMORY, SECONDS = 400, 10
"""Megabytes of a child, seconds of an input."""
_FORBIDDEN = ("socket.connect", "socket.bind", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork")
_WRITES = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "shutil.rmtree", "os.truncate")
_IN_TREE = ("os.remove", "os.rmdir")  # with the descriptor of a folder: steps of shutil.rmtree, which is seen itself


@pytest.fixture(scope="module")
def tiny() -> Backbone:
    return load_backbone("tiny", precision="fp32")


def watch(home: Path) -> list[str]:
    """From here on, what this process does that no reader may do is noted down; it cannot be undone."""
    seen: list[str] = []

    def inside(place: object) -> bool:
        text = os.fsdecode(place) if isinstance(place, str | bytes | os.PathLike) else ""
        return os.path.abspath(text).startswith(str(home)) or not text

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event in _IN_TREE and arguments[1] != -1:
            return
        if event.startswith(_FORBIDDEN):
            seen.append(f"{event} {arguments!r:.100}")
        elif event.startswith(_WRITES) and not inside(arguments[0]):
            seen.append(f"{event} {arguments[0]!r:.100}")
        elif event == "open" and set(str(arguments[1] or "")) & set("wax+") and not inside(arguments[0]):
            seen.append(f"open {arguments[0]!r:.100} to write")

    sys.addaudithook(hook)
    return seen


def attempt(case: Case, valid: Path, content: bytes, place: Path) -> str:
    """What is wrong with how a reader took an input; empty if nothing is."""
    shutil.copytree(valid, place)
    (place / case.file).write_bytes(content)
    began = time.monotonic()
    spent = time.process_time()
    try:
        case.mend(place)
        case.read(place)
    except DaptuneError as error:
        text = str(error)
        if "\n" in text or UNSAFE.search(text) or len(text) > 5000:
            return f"its message is not one line: {text[:200]!r}"
        text.encode()
    except BaseException as error:
        return f"{type(error).__name__}: {error}"[:300]
    finally:
        shutil.rmtree(place, ignore_errors=True)
    taken = min(time.monotonic() - began, time.process_time() - spent)
    return f"it took {taken:.1f} s" if taken > SECONDS else ""


def tried(case: Case, valid: Path, inputs: list[bytes], home: Path) -> Callable[[], list[str]]:
    def run() -> list[str]:
        seen = watch(home)
        faults = [attempt(case, valid, content, home / f"try-{place}") for place, content in enumerate(inputs)]
        return [*faults, *seen]

    return run


def batches(case: Case, content: bytes, number: int, seed: int) -> Iterator[list[bytes]]:
    chance = random.Random(f"{seed} {case.name}")
    inputs = [mutate(content, chance) for _ in range(number)]
    yield from (inputs[start : start + BATCH] for start in range(0, number, BATCH))


def fault_of(outcome: Outcome, inputs: list[bytes]) -> list[str]:
    if outcome.signal or outcome.error is not None:
        return [f"ended by signal {outcome.signal}, error {outcome.error!r:.200}"]
    assert isinstance(outcome.answer, list)
    return [f"{fault} (input {place})" for place, fault in enumerate(outcome.answer) if fault]


def test_damaged_files_end_in_an_answer_or_one_line(
    tiny: Backbone,
    tmp_path: Path,
    tries: Callable[[int, int], int],
    seed: int,
    tally: Callable[..., None],
) -> None:
    readers = cases(tiny)
    each = tries(100, 10_000) / sum(case.share for case in readers)
    inputs = 0
    faults: list[str] = []
    peaks, times = [0.0], [0.0]
    for number, case in enumerate(readers):
        valid, home = tmp_path / f"valid-{number}", tmp_path / f"home-{number}"
        valid.mkdir()
        home.mkdir()
        case.make(valid)
        content = (valid / case.file).read_bytes()
        assert attempt(case, valid, content, home / "whole") == "", case.name  # the file is read as it is
        for some in batches(case, content, max(1, round(each * case.share)), seed):
            outcome = in_child(tried(case, valid, some, home), MEMORY, 60 + SECONDS * len(some))
            inputs += len(some)
            if found := fault_of(outcome, some):
                kept = [home / f"kept-{place}" for place in range(len(some))]
                for place, data in zip(kept, some, strict=True):
                    place.write_bytes(data)
                faults += [f"{case.name}: {fault}" for fault in found]
            peaks.append(outcome.peak)
            times.append(outcome.seconds / len(some))
    tally(inputs=inputs, failures=len(faults), peak=max(peaks), longest=max(times))
    assert not faults, "\n".join(faults)


def test_the_watch_sees_what_no_reader_may_do(tmp_path: Path) -> None:
    def misbehave() -> list[str]:
        seen = watch(tmp_path / "home")
        (tmp_path / "outside").write_text("x")
        (tmp_path / "home").mkdir()
        (tmp_path / "home" / "inside").write_text("x")
        os.system("true")
        import socket

        with socket.socket() as connection:
            connection.connect_ex(("127.0.0.1", 9))
        return [text.partition(" ")[0] for text in seen]

    assert in_child(misbehave).answer == ["open", "os.system", "socket.connect"]
