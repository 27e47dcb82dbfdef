"""Data-parallel training: each process computes a share of every batch, and all make the same steps.

    daptune fit pictures/ --devices 2                                # processes of this machine
    torchrun --nproc-per-node 2 -m daptune fit pictures/             # or started by a cluster

A loss is a mean over images plus terms without images, so that shares weighted by their number of images add up to the
loss and gradient of the whole batch. A method whose loss couples the images of a batch (`whole_batch`) gets all of it
in every process. Dropout draws other numbers than in a single process.
"""

import multiprocessing
import os
import re
import signal
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from daptune.errors import DaptuneError, Interrupted, TrainingError
from daptune.processes import end_with_parent, in_main_thread

T = TypeVar("T")
_LOST = re.compile(r"gloo|nccl|connection (closed|reset)", re.IGNORECASE)
"""In what torch says to a rank when another one is gone."""
GRACE = 10.0
"""Seconds that rank 0 gets to report its error after another process has ended."""


class _Lost(TrainingError):
    """A rank cannot go on, because another one is gone."""


class Ranks:
    """The processes of a distributed training. In a single process, all functions leave their inputs unchanged."""

    def __init__(self) -> None:
        together = dist.is_available() and dist.is_initialized()
        self.rank = dist.get_rank() if together else 0
        self.size = dist.get_world_size() if together else 1

    @property
    def first(self) -> bool:
        """Whether this is rank 0, the only process that writes and reports."""
        return self.rank == 0

    def share(self, images: Tensor, labels: Tensor, *, whole: bool = False) -> tuple[Tensor, Tensor, float]:
        """This process's images (b, ...) and labels (b,) of a batch of B, and their weight b / B.

        With fewer images than processes, some get one image of weight 0. `whole` gives all images to each.
        """
        if self.size == 1 or whole:
            return images, labels, 1 / self.size
        low, high = (len(labels) * place // self.size for place in (self.rank, self.rank + 1))
        rows = slice(low, high) if high > low else slice(0, 1)
        return images[rows], labels[rows], (high - low) / len(labels)

    def mean(self, terms: Mapping[str, Tensor], weight: float) -> dict[str, Tensor]:
        """Reduce scalars of the shares to those of the whole batch."""
        if self.size == 1:
            return dict(terms)
        values = torch.stack([torch.as_tensor(value).detach().float() for value in terms.values()]) * weight
        if weight == 0:
            values.zero_()  # also NaN
        dist.all_reduce(values)
        return dict(zip(terms, values.unbind(), strict=True))

    def add_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Sum each gradient over processes, in one transfer."""
        found = [p.grad for p in parameters if p.grad is not None]
        if self.size == 1 or not found:
            return
        flat = torch.cat([gradient.reshape(-1) for gradient in found])
        dist.all_reduce(flat)
        for gradient, total in zip(found, flat.split([g.numel() for g in found]), strict=True):
            gradient.copy_(total.view_as(gradient))

    def any(self, asked: bool) -> bool:
        """Whether `asked` is true in any process."""
        if self.size == 1:
            return asked
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, asked)
        return any(found)

    def begin_alike(self, tensors: Iterable[Tensor]) -> None:
        """Broadcast the values of rank 0."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor.detach(), src=0)

    def from_first(self, make: Callable[[], T]) -> T:
        """Broadcast the result of `make` in rank 0, or the DaptuneError that it raises."""
        if self.size == 1:
            return make()
        answer: list[Any] = [None, None]
        if self.first:
            try:
                answer[0] = make()
            except DaptuneError as error:
                answer[1] = error
        dist.broadcast_object_list(answer, src=0)
        if answer[1] is not None:
            raise answer[1]
        value: T = answer[0]
        return value


@contextmanager
def joined(device: str) -> Iterator[str]:
    """Join the process group given by RANK and WORLD_SIZE, if there is one.

    Yields the device of this process: for "cuda", the GPU with its local rank.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) < 2 or "RANK" not in os.environ:
        yield device
        return
    if "TORCHELASTIC_RUN_ID" in os.environ:  # started by torchrun, which a kill keeps from stopping its processes
        end_with_parent(os.getppid())
    cuda = device.startswith("cuda")
    if device == "cuda":
        device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
        torch.cuda.set_device(device)
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo")
    try:
        yield device
    finally:
        dist.destroy_process_group()


def launch(devices: int, work: Callable[[], int]) -> int:
    """Run `work` in as many new processes on this machine; returns or raises the result of rank 0.

    The first SIGINT or SIGTERM is passed on, so that they save their state; a second one kills them.
    """
    from torch.distributed.elastic.utils.distributed import get_free_port

    context = multiprocessing.get_context("spawn")
    port, processes, pipes = get_free_port(), [], []
    for rank in range(devices):
        ours, theirs = context.Pipe(duplex=False)
        given = work, rank, devices, port, theirs, os.getpid(), in_main_thread()
        process = context.Process(target=_serve, args=given, daemon=True)
        process.start()
        theirs.close()
        processes.append(process)
        pipes.append(ours)
    received = 0

    def hand_on(*_: object) -> None:
        nonlocal received
        received += 1
        for process in processes:
            process.terminate() if received == 1 else process.kill()

    before = {number: signal.signal(number, hand_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        answers: dict[int, int | BaseException] = {}
        while len(answers) < devices and 0 not in answers:
            ended = wait([pipes[rank] for rank in range(devices) if rank not in answers])
            answers |= {rank: _answer(rank, pipes[rank], processes[rank]) for rank in map(pipes.index, ended)}  # type: ignore[arg-type]
            if any(isinstance(answer, BaseException) for answer in answers.values()) and 0 not in answers:
                if wait([pipes[0]], GRACE):
                    answers[0] = _answer(0, pipes[0], processes[0])
                break
        first = _outcome(answers)
        if received and not isinstance(first, Interrupted):  # nothing was saved yet
            raise KeyboardInterrupt
        if isinstance(first, BaseException):
            raise first
        for process in processes:
            process.join(GRACE)
        return first
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for process in processes:
            process.kill()
            process.join()


def _outcome(answers: Mapping[int, int | BaseException]) -> int | BaseException:
    """What to return or raise: the answer of rank 0, or if it only lost another rank, the line that says which."""
    first = answers.get(0)
    if isinstance(first, int | DaptuneError) and not isinstance(first, _Lost):
        return first
    failed = [answer for answer in answers.values() if isinstance(answer, BaseException)]
    lines = [answer for answer in failed if isinstance(answer, DaptuneError) and not isinstance(answer, _Lost)]
    return (lines or failed)[0]


def _answer(rank: int, pipe: Connection, process: Any) -> int | BaseException:
    try:
        answer: int | BaseException = pipe.recv()
        return answer
    except EOFError:
        process.join()
        return TrainingError(
            f"process {rank} of the training ended with code {process.exitcode}; use fewer --devices or a smaller "
            "--batch-size, and continue with --resume"
        )


def _serve(
    work: Callable[[], int], rank: int, size: int, port: int, pipe: Connection, parent: int, by_kernel: bool
) -> None:
    """Run `work` in a process that only its parent can stop, not the terminal, and that ends with its parent."""
    end_with_parent(parent, by_kernel=by_kernel)
    if hasattr(os, "setpgrp"):
        os.setpgrp()
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    if any(name == "lo" for _, name in socket.if_nameindex()):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # all processes are on this machine
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, torch.get_num_threads() // size))
    try:
        pipe.send(work())
    except DaptuneError as error:
        pipe.send(error)
    except RuntimeError as error:
        if not _LOST.search(str(error)):
            pipe.send(RuntimeError(f"{type(error).__name__}: {error}"))
            raise
        pipe.send(_Lost("another process of the training ended; continue with --resume"))
    except BaseException as error:
        pipe.send(RuntimeError(f"{type(error).__name__}: {error}"))
        raise
