"""Training: `fit_method` is the training loop, `Descent.step` one gradient step.

    history = fit_method(method, loader, TrainConfig(epochs=20), run_dir=Path("runs/a"))
    history = fit_method(method, loader, TrainConfig(epochs=20), run_dir=Path("runs/a"), resume=True)

An interrupted and resumed run gives the same bits as an uninterrupted one (on the same machine with the same number of
threads). No random generator carries state between steps: order and augmentation depend on (seed, epoch, index),
dropout on (seed, step), the learning rate and the method's stage on the step. All other state is in the checkpoint
(run.py).
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn.utils import clip_grad_norm_

from daptune.clip.frozen import packs_made_anew
from daptune.clip.transfer import Transfer
from daptune.data.loader import Batch, ImageLoader
from daptune.errors import TrainingError
from daptune.evaluate import evaluate, start_sigmoids
from daptune.heap import memory_kept
from daptune.methods.base import Method
from daptune.train.checkpoint import Checkpoint
from daptune.train.compiling import check_compiler, compiled_blocks
from daptune.train.features import encoded_once
from daptune.train.folder import run_folder
from daptune.train.history import History, Progress
from daptune.train.parallel import Ranks
from daptune.train.run import ACCURACY, Run, identity_of, open_run, validations_of
from daptune.train.schedule import TrainConfig, build_optimizer
from daptune.train.stopping import StopSignals
from daptune.train.text_first import learn_text_first


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
    """Train `method` in place, on its device, and leave it in evaluation mode.

    Methods without trainable parameters are fitted by `before_fit`. Otherwise `after_epoch` is called before each
    validation, `after_fit` after the last step. Distributed (parallel.py), all processes call it; rank 0 writes.

    val       evaluated after every epoch (about 50 times in long runs, fewer if it is large); config.select "best_val"
              chooses the epoch by it. Never the test images.
    run_dir   folder for checkpoint.safetensors and history.jsonl; None: nothing is written
    resume    resume from the checkpoint in run_dir; start from scratch if there is none yet
    progress  called after each step (on other devices than the CPU: every few steps); its exceptions end the run
    stop      called after each step; true acts like SIGINT: the state is saved and `Interrupted` raised

    Raises `TrainingError` for a non-finite loss (the parameters of the last checkpoint are restored), a full disk, a
    damaged checkpoint or one of another run, and a folder that another process writes. Raises `Interrupted` after
    SIGINT, SIGTERM or `stop`, with state saved.
    """
    steps = -(-train.batches_per_epoch // config.accumulate)  # per epoch, rounded up
    config = config.resolved(steps, method.default_lr, text_first=method.text_first)
    if config.select == "best_val" and val is None:
        raise TrainingError("select='best_val' needs validation images; give some, or use select='last'.")
    if config.compile:
        check_compiler(method.device)
    ranks, identity = Ranks(), identity_of(method, train, val, config) if run_dir is not None else {}
    with memory_kept(), ExitStack() as held:

        def opened() -> Checkpoint | None:
            held.enter_context(run_folder(run_dir))
            return open_run(run_dir, identity, asdict(method.config_class()), resume=resume)

        checkpoint = ranks.from_first(opened)
        run_dir, progress = (run_dir, progress) if ranks.first else (None, None)
        feed, held_out = encoded_once(method, train, config.epochs), None if val is None else encoded_once(method, val)
        with seeded(config.seed, 0, method.device):
            method.before_fit(feed, held_out)  # also when resuming: it may prepare more than the checkpoint holds
            start_sigmoids(method, feed)
        ranks.begin_alike((*method.parameters(), *method.buffers()))
        if not method.trainable:
            method.eval()
            return History()
        if config.text_steps and checkpoint is None:
            learn_text_first(method, feed, config, progress, StopSignals(stop, agree=ranks.any))
            ranks.begin_alike(method.parameters())

        def begun(optimizer: torch.optim.Optimizer, signals: StopSignals) -> Run:
            validations = validations_of(train, val, config)
            told = progress, signals, validations
            return Run(method, optimizer, config, steps, identity, run_dir, checkpoint, *told)

        return _descend(method, feed, held_out, config, ranks, stop, begun)


def _descend(
    method: Method,
    feed: ImageLoader,
    held_out: ImageLoader | None,
    config: TrainConfig,
    ranks: Ranks,
    stop: Callable[[], bool] | None,
    begun: Callable[[torch.optim.Optimizer, StopSignals], Run],
) -> History:
    """The gradient steps of a run that `begun` makes, from where it stands to its end."""
    with (
        StopSignals(stop, agree=ranks.any) as signals,
        saving_memory(method, config.memory == "low"),
        compiled_blocks(method, config.compile) as begin,
    ):
        optimizer = build_optimizer(method, config)
        run = begun(optimizer, signals)
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
        """Finish the current epoch: its steps, the method's `after_epoch`, and the validation."""
        run = self.run
        self.method.train()
        for batches in grouped(feed, run.state.epoch, run.state.step, self.config.accumulate):
            self.step(batches)
            run.end_step()  # checks that losses are finite; may save or stop
        run.settle_epoch()
        seen = held_out if run.validates else None
        found = None if seen is None else evaluate(self.method, seen, after_batch=self._between)
        run.end_epoch(self.ranks.from_first(lambda: found))

    def step(self, batches: list[Batch]) -> None:
        """One step with the mean gradient of `batches`."""
        method, run, ranks = self.method, self.run, self.ranks
        method.stage = run.stage
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
    """Turn a method trained with select="last" into the one that select="best_val" gives."""
    method.load_state_dict(history.best)
    method.after_fit(train, val)


def grouped(loader: ImageLoader, epoch: int, step: int, size: int) -> Iterator[list[Batch]]:
    """The batches of an epoch in groups of `size`, one per step, from step `step`; the last may be smaller."""
    start = step * size
    if start >= loader.batches_per_epoch:  # resumed after the last step of the epoch
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
    """Inside, the image tower has `recompute` set, and no copies of weights are cached."""
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
    """Seed torch with (seed, step) inside; its global state is restored afterwards."""
    number = int(np.random.SeedSequence((seed, step)).generate_state(1, np.uint64)[0])
    on_gpu = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if on_gpu else []):
        # not torch.manual_seed: at each step it queues a call for every type of device that is absent
        torch.default_generator.manual_seed(number)
        if on_gpu:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(number)
        yield
