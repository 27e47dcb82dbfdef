"""Training: `fit_method` is the whole of it, and `Descent.step` is one gradient step.

    history = fit_method(method, loader, TrainConfig(epochs=20), run_dir=Path("runs/a"))
    history = fit_method(method, loader, TrainConfig(epochs=20), run_dir=Path("runs/a"), resume=True)

A run that is stopped at any moment and resumed ends in the same bits as one that was not (on the same machine with
the same number of threads). Nothing random has a state that could be lost: the loader is a function of (seed, epoch,
index), dropout of (seed, step), the learning rate of the step. What has a state is in the checkpoint (run.py).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn.utils import clip_grad_norm_

from daptune.clip.frozen import packs_made_anew
from daptune.clip.transfer import Transfer
from daptune.data.loader import Batch, ImageLoader
from daptune.errors import TrainingError
from daptune.evaluate import evaluate
from daptune.methods.base import Method
from daptune.train.compiling import check_compiler, compiled_blocks
from daptune.train.features import encoded_once
from daptune.train.history import History, Progress
from daptune.train.parallel import Ranks
from daptune.train.run import ACCURACY, Run, identity_of, open_run
from daptune.train.schedule import TrainConfig, build_optimizer
from daptune.train.stopping import StopSignals


def fit_method(
    method: Method,
    train: ImageLoader,
    config: TrainConfig,
    *,
    val: ImageLoader | None = None,
    run_dir: Path | None = None,
    resume: bool = False,
    progress: Callable[[Progress], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> History:
    """Train `method` in place, on the device where it is, and leave it in evaluation mode.

    Methods without trainable parameters (zero_shot, linear_probe) are ready after their `before_fit`; of the others
    `after_epoch` is called before an epoch is validated, and `after_fit` when all steps are done. Where processes train
    together (parallel.py), all call this; the first one writes and tells.

    val       measured after every epoch (of very many, after about 50); with config.select "best_val" it chooses the
              epoch. Never the test images.
    run_dir   folder for checkpoint.safetensors and history.jsonl; None: nothing is written
    resume    go on from the checkpoint in run_dir; from the start if there is none yet
    progress  called after each step (off the CPU: after every few); what it raises ends the run
    stop      asked after each step; true is like SIGINT: the state is saved and `Interrupted` raised

    Raises `TrainingError`: loss not finite (the last checkpoint's parameters are put back), disk full, a checkpoint
    that is damaged or of another run. Raises `Interrupted` after SIGINT, SIGTERM or `stop`, with the state saved.
    """
    steps = -(-train.batches_per_epoch // config.accumulate)  # per epoch, rounded up
    config = config.resolved(steps, method.default_lr)
    if config.select == "best_val" and val is None:
        raise TrainingError("select='best_val' needs validation images; give some, or use select='last'.")
    if config.compile:
        check_compiler(method.device)
    ranks, identity = Ranks(), identity_of(method, train, val, config) if run_dir is not None else {}
    checkpoint = ranks.from_first(lambda: open_run(run_dir, identity, resume=resume))
    if not ranks.first:
        run_dir = progress = None
    with seeded(config.seed, 0, method.device):
        method.before_fit(train, val)  # when resuming too: it may prepare more than the checkpoint holds
    ranks.begin_alike((*method.parameters(), *method.buffers()))
    if not method.trainable:
        method.eval()
        return History()
    feed, held_out = encoded_once(method, train), None if val is None else encoded_once(method, val)
    with (
        StopSignals(stop, agree=ranks.any) as signals,
        saving_memory(method, config.memory == "low"),
        compiled_blocks(method, config.compile) as begin,
    ):
        optimizer = build_optimizer(method, config)
        run = Run(method, optimizer, config, steps, identity, run_dir, checkpoint, progress, signals)
        descent = Descent(method, config, optimizer, run, ranks, begin)
        try:
            while not run.state.finished:
                descent.epoch(feed, held_out)
            history = run.finish()
        finally:
            method.eval()
    method.after_fit(feed, held_out)
    return history


@dataclass
class Descent:
    """The epochs of a run and their gradient steps. `begin` is called before each forward (`compiled_blocks`)."""

    method: Method
    config: TrainConfig
    optimizer: torch.optim.Optimizer
    run: Run
    ranks: Ranks
    begin: Callable[[], None]

    def __post_init__(self) -> None:
        self._learned = [p for p in self.method.parameters() if p.requires_grad]
        self._transfer = Transfer(self.method.device)

    def epoch(self, feed: ImageLoader, held_out: ImageLoader | None) -> None:
        """What is left of the epoch under way: its steps, the method's `after_epoch`, and then the validation."""
        run = self.run
        self.method.train()
        for batches in grouped(feed, run.state.epoch, run.state.step, self.config.accumulate):
            self.step(batches)
            run.end_step()  # looks whether losses are finite; stops or saves when it is time to
        run.settle_epoch()
        seen = held_out if run.validates else None
        found = None if seen is None else evaluate(self.method, seen, after_batch=self._between)
        run.end_epoch(self.ranks.from_first(lambda: found))

    def step(self, batches: list[Batch]) -> None:
        """One step along the mean gradient of `batches`."""
        method, run, ranks = self.method, self.run, self.ranks
        for group in self.optimizer.param_groups:
            group["lr"] = run.lr
        self.optimizer.zero_grad(set_to_none=True)
        self.begin()
        together = method.text_features_once() if len(batches) > 1 else nullcontext()
        with seeded(self.config.seed, run.total_steps + 1, method.device), together:
            for batch in batches:
                images, labels, weight = ranks.share(*batch, whole=method.whole_batch)
                terms = method.losses(*self._transfer(images, labels))
                (terms["total"] * (weight / len(batches))).backward()
                if method.batch_accuracy is not None:
                    terms = {**terms, ACCURACY: method.batch_accuracy}
                run.note(ranks.mean(terms, weight), len(batch[1]))
        ranks.add_gradients(self._learned)
        if self.config.clip_norm is not None:
            clip_grad_norm_(self._learned, self.config.clip_norm)
        self.optimizer.step()

    def _between(self) -> None:
        self.begin()
        self.run.pause()


def take_best(method: Method, history: History, train: ImageLoader, val: ImageLoader) -> None:
    """Give a method that was trained with select="last" what select="best_val" would have left it with."""
    method.load_state_dict(history.best)
    method.after_fit(train, val)


def grouped(loader: ImageLoader, epoch: int, step: int, size: int) -> Iterator[list[Batch]]:
    """The batches of an epoch, `size` together for each step, from step `step` on; the last may have fewer."""
    start = step * size
    if start >= loader.batches_per_epoch:  # resumed between the last step and the end of the epoch
        return
    group: list[Batch] = []
    for batch in loader.epoch(epoch, start):
        group.append(batch)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


@contextmanager
def saving_memory(method: Method, wanted: bool) -> Iterator[None]:
    """Inside, the method's image tower has `recompute`, and no copies of weights are kept."""
    if not wanted:
        yield
        return
    tower = method.clip.visual
    before, tower.recompute = tower.recompute, True
    try:
        with packs_made_anew():
            yield
    finally:
        tower.recompute = before


@contextmanager
def seeded(seed: int, step: int, device: torch.device) -> Iterator[None]:
    """Torch's random numbers as a function of (seed, step) inside; its global state untouched outside."""
    number = int(np.random.SeedSequence((seed, step)).generate_state(1, np.uint64)[0])
    on_gpu = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if on_gpu else []):
        # not torch.manual_seed: it queues a call for every kind of device that is not there, at each step anew
        torch.default_generator.manual_seed(number)
        if on_gpu:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(number)
        yield
