"""Locks end with their process, and say who holds them."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from daptune import locks

pytest.importorskip("fcntl")
HOLDER = """
import sys, time
from pathlib import Path
from daptune import locks
with locks.lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".lock"


def test_another_process_holds_it_until_it_is_killed(path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(locks.Busy, match=f"^process {holder.pid}$"), locks.lock(path, wait=0.1):
            pass
        assert locks.is_held(path)
        holder.kill()
    assert path.exists() and not locks.is_held(path)
    with locks.lock(path) as real:
        assert real and path.read_text().split()[0] == str(os.getpid())
    assert not path.exists()


def test_a_thread_may_take_it_again_where_it_says_so(path: Path) -> None:
    with locks.lock(path):
        with locks.lock(path, again=True):
            pass
        assert path.exists()
        with pytest.raises(locks.Busy, match="this process"), locks.lock(path):
            pass
        told: list[str] = []

        def other() -> None:
            try:
                with locks.lock(path, again=True):
                    told.append("held")
            except locks.Busy as busy:
                told.append(str(busy))

        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert told == ["this process"]
    assert not path.exists()


def test_threads_take_turns(path: Path) -> None:
    """No two are inside at once, though the file is removed and made anew each time."""
    inside, most = 0, 0
    guard = threading.Lock()

    def work() -> None:
        nonlocal inside, most
        for _ in range(20):
            with locks.lock(path, wait=60):
                with guard:
                    inside += 1
                    most = max(most, inside)
                with guard:
                    inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_without_locks_all_are_granted(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with locks.lock(path) as real:
        assert not real
    assert not path.exists()
    assert locks.open_alone(path, wait=0) is None and path.exists()
    assert locks.is_held(path), "nobody can tell"
