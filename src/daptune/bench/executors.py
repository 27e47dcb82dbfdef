"""Executors of jobs: processes on this machine, or the nodes of a Ray cluster."""

import contextlib
import multiprocessing
import os
import signal
import warnings
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from daptune.bench.job import Outcome, failed, run_jobs
from daptune.bench.memory import available_bytes
from daptune.bench.plan import Job
from daptune.cluster import RETRIES, connected
from daptune.data.parallel import default_workers
from daptune.errors import PlanError
from daptune.processes import end_with_parent, in_main_thread

Group = Sequence[Job]  # jobs that share a training
FIRST_GUESS = 2 * 10**9  # assumed memory of a job in bytes, until one has been measured
MARGIN = 1.25


@dataclass(frozen=True)
class Setting:
    """Data folder, device and function of the jobs."""

    root: Path
    device: str = "cpu"
    work: Callable[..., list[Outcome]] = run_jobs
    """Called like `run_jobs`; a module-level function, because spawned processes import it."""


class Executor(ABC):
    """Runs groups of jobs, in any order."""

    @abstractmethod
    def run(self, groups: Sequence[Group], setting: Setting) -> Iterator[tuple[Group, list[Outcome]]]:
        """Yield each group once, when it is done; closing the iterator stops running groups."""


@dataclass
class LocalProcesses(Executor):
    """Spawned processes on this machine, as many as `processes`, cores and memory allow.

    If a process dies, by a crash or for lack of memory, only its own jobs fail.
    """

    processes: int | None = None
    peak: int = FIRST_GUESS  # highest measured memory of a job in bytes
    _busy: dict[Connection, "_Worker"] = field(default_factory=dict, init=False)
    _idle: list["_Worker"] = field(default_factory=list, init=False)

    def run(self, groups: Sequence[Group], setting: Setting) -> Iterator[tuple[Group, list[Outcome]]]:
        waiting = deque(groups)
        limit = min(self.processes or _fitting(setting.device), len(waiting))
        chosen = self.processes is not None or setting.device != "cpu"
        memory = None if chosen else available_bytes()  # not for an explicit number of processes, nor for GPUs
        said = os.environ.get("OMP_NUM_THREADS", "")
        threads = int(said) if said.isdecimal() else max(1, default_workers() // max(1, limit))
        try:
            while waiting or self._busy:
                allowed = limit if memory is None else max(1, min(limit, int(memory / (MARGIN * self.peak))))
                while waiting and len(self._busy) < allowed:
                    free = set(range(limit)) - {worker.number for worker in self._busy.values()}
                    worker = self._idle.pop() if self._idle else _Worker(min(free), setting, threads)
                    worker.give(waiting.popleft())
                    self._busy[worker.connection] = worker
                for ready in wait(list(self._busy)):
                    worker = self._busy.pop(ready)  # type: ignore[call-overload]
                    outcomes = worker.take()
                    if worker.process.is_alive():
                        self._idle.append(worker)
                    self.peak = max(self.peak, *(int(outcome.result.peak_bytes or 0) for outcome in outcomes))
                    yield worker.group, outcomes
        finally:
            for worker in (*self._idle, *self._busy.values()):
                worker.process.kill()
                worker.process.join()
            self._idle, self._busy = [], {}


def _fitting(device: str) -> int:
    """Number of processes for a device: one per core or per GPU."""
    if device == "cuda":
        import torch

        return max(1, torch.cuda.device_count())
    return default_workers() if device == "cpu" else 1


class _Worker:
    """A process that runs one group after another; its number selects its GPU."""

    group: Group

    def __init__(self, number: int, setting: Setting, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.number = number
        given = theirs, number, setting, threads, os.getpid(), in_main_thread()
        self.process = context.Process(target=_serve, args=given, daemon=True)
        self.process.start()
        theirs.close()  # so that the pipe closes when the process ends

    def give(self, group: Group) -> None:
        self.group = group
        with contextlib.suppress(OSError):  # the process died while idle: `take` reports it
            self.connection.send(group)

    def take(self) -> list[Outcome]:
        try:
            return list(self.connection.recv())
        except (EOFError, OSError):
            self.process.join()
            code = self.process.exitcode or 0
            ended = f"by signal {signal.Signals(-code).name}" if code < 0 else f"with code {code}"
            hint = "; if it ran out of memory, use fewer --processes" if code == -signal.SIGKILL else ""
            return failed(self.group, f"its process ended {ended}{hint}")


def _serve(connection: Connection, number: int, setting: Setting, threads: int, parent: int, by_kernel: bool) -> None:
    """Main loop of a process; it ends with its parent, even during a training."""
    end_with_parent(parent, by_kernel=by_kernel)
    import torch
    from threadpoolctl import threadpool_limits

    warnings.filterwarnings("ignore", module="sklearn")  # warnings about few images per class, which are intended
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent handles it
    torch.set_num_threads(threads)
    device = setting.device
    if device == "cuda":
        device = f"cuda:{number % max(1, torch.cuda.device_count())}"
    with threadpool_limits(threads):
        while True:
            try:
                group = connection.recv()
                connection.send(setting.work(group, setting.root, device))
            except (EOFError, OSError):
                return


@dataclass
class RayCluster(Executor):
    """The nodes of a Ray cluster, one core per job. All nodes must have the data sets at the same path.

    A job whose node is lost is retried on another, up to RETRIES times.
    """

    address: str | None = None

    def run(self, groups: Sequence[Group], setting: Setting) -> Iterator[tuple[Group, list[Outcome]]]:
        gpus = 1 if setting.device.startswith("cuda") else 0
        with connected(self.address, error=PlanError) as ray:
            remote = ray.remote(setting.work).options(num_cpus=1, num_gpus=gpus, max_retries=RETRIES)
            root = setting.root.absolute()
            pending: dict[Any, Group] = {remote.remote(list(group), root, setting.device): group for group in groups}
            while pending:
                done, _ = ray.wait(list(pending), num_returns=1)
                group = pending.pop(done[0])
                try:
                    yield group, ray.get(done[0])
                except ray.exceptions.RayError as error:
                    yield group, failed(group, f"Ray could not run it: {error}")
