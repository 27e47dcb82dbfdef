"""Of a training in two processes any one is killed: none is left, and the resumed run is that of one that was not."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import safetensors.torch
import torch

from daptune.train.folder import LOCK
from daptune.train.history import HISTORY_NAME
from tests.attack.conftest import WHOLE
from tests.conftest import COLOURS, save_picture

PATIENCE = 900.0
EPOCHS = 40


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of four pictures to learn from, and one each to measure on."""
    folder = tmp_path_factory.mktemp("few")
    for place, name in enumerate(("red", "green thing")):
        for number in range(4):
            save_picture(folder / "train" / name / f"{number}.png", COLOURS[name], 10 * place + number)
        save_picture(folder / "test" / name / "0.png", COLOURS[name], 90 + place)
    return folder


def words(few: Path, backbone: str, out: Path, *more: str) -> list[str]:
    fixed = ["--method", "coop", "--set", "text_tokens=2", "--epochs", str(EPOCHS), "--batch-size", "4"]
    fixed += ["--backbone", backbone, "--precision", "fp32", "--train", "checkpoint_seconds=0"]
    return [sys.executable, "-m", "daptune", "fit", str(few), "--out", str(out), "--devices", "2", *fixed, *more]


def children(parent: int) -> list[int]:
    """Processes that a process has started, and those that they did."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            about = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        if int(about[1]) == parent and about[0] != "Z":
            found.append(int(stat.parent.name))
    return found + [grandchild for child in found for grandchild in children(child)]


def is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def ranks(parent: int) -> list[int]:
    """The ranks, in their order; not the process that multiprocessing keeps for its resources."""
    return sorted(p for p in children(parent) if b"spawn_main" in Path(f"/proc/{p}/cmdline").read_bytes())


def waited(condition: Callable[[], object], process: "subprocess.Popen[str] | None" = None) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until and (process is None or process.poll() is None)
        time.sleep(0.02)


def rows(out: Path) -> list[dict[str, object]]:
    path = out.with_name(out.name + ".run") / HISTORY_NAME
    found = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [{name: value for name, value in row.items() if name != "seconds"} for row in found]


@pytest.fixture
def begun(few: Path, made_up_backbone: str, tmp_path: Path) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Start a fit; whatever happens, none of its processes outlives the test."""
    started: list[subprocess.Popen[str]] = []

    def begin(out: Path, *more: str) -> "subprocess.Popen[str]":
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
        process = subprocess.Popen(
            words(few, made_up_backbone, out, *more), env=environment, text=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        started.append(process)
        return process

    yield begin
    for process in started:
        for each in [*children(process.pid), process.pid]:
            if is_alive(each):
                os.kill(each, signal.SIGKILL)
        process.wait()
        if process.stderr is not None:
            process.stderr.close()


CHILDREN = """
import multiprocessing, os, time
from daptune.processes import end_with_parent

def work(parent, by_kernel):
    end_with_parent(parent, by_kernel=by_kernel)
    print(os.getpid(), flush=True)
    time.sleep(600)

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    for by_kernel in (True, False):
        context.Process(target=work, args=(os.getpid(), by_kernel)).start()
    time.sleep(600)
"""


def test_processes_end_with_the_one_that_started_them(tmp_path: Path, tally: Callable[..., None]) -> None:
    """By the kernel, and by the thread that waits for the parent."""
    script = tmp_path / "family.py"
    script.write_text(CHILDREN)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, str(script)], env=environment, text=True, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        family = [int(parent.stdout.readline()) for _ in range(2)]
        assert all(map(is_alive, family))
        began = time.monotonic()
        parent.kill()
        waited(lambda: not any(map(is_alive, family)))
        tally(kills=1, longest=time.monotonic() - began)


@pytest.mark.slow
@pytest.mark.skipif(not WHOLE, reason="nine processes that import torch: by make attack")
def test_any_process_killed(
    begun: Callable[..., "subprocess.Popen[str]"],
    few: Path,
    made_up_backbone: str,
    tmp_path: Path,
    tally: Callable[..., None],
) -> None:
    """Each of the parent and the ranks, in turn."""
    whole = tmp_path / "whole"
    _, told = begun(whole).communicate(timeout=PATIENCE)
    reference = safetensors.torch.load_file(whole / "adapter.safetensors")
    assert len(rows(whole)) == EPOCHS, told
    victims = ("parent", "rank 0", "rank 1")
    longest = 0.0
    for victim in victims:
        out = tmp_path / victim.replace(" ", "-")
        process = begun(out)
        waited(lambda out=out: len(rows(out)) >= 2, process)
        family = [process.pid, *children(process.pid)]
        place = {"parent": process.pid, "rank 0": ranks(process.pid)[0], "rank 1": ranks(process.pid)[1]}[victim]
        began = time.monotonic()
        os.kill(place, signal.SIGKILL)
        waited(lambda family=family, process=process: process.poll() is not None and not any(map(is_alive, family)))
        longest = max(longest, time.monotonic() - began)
        _, told = process.communicate()
        if victim != "parent":
            errors = [line for line in told.splitlines() if line.startswith("daptune: error:")]
            assert len(errors) == 1 and "--resume" in errors[0] and "Traceback" not in told, told
        assert len(rows(out)) < EPOCHS
        again = begun(out, "--resume")
        _, told = again.communicate(timeout=PATIENCE)
        assert again.returncode == 0, told
        assert rows(out) == rows(whole)
        found = safetensors.torch.load_file(out / "adapter.safetensors")
        assert found.keys() == reference.keys() and all(map(torch.equal, found.values(), reference.values()))
        assert not (out.with_name(out.name + ".run") / LOCK).exists()
    tally(kills=len(victims), longest=longest)
