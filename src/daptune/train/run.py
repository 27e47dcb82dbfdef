"""State of a training run: progress, history, checkpoints, interruption.

run_dir/checkpoint.safetensors   everything needed to resume (checkpoint.py)
run_dir/history.jsonl            one line per epoch; truncated to the checkpoint on resuming
run_dir/...                      folder.py
"""

import copy
import json
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from daptune.data.loader import ImageLoader
from daptune.errors import Interrupted, TrainingError
from daptune.files import difference, json_line, write
from daptune.measured import Measured
from daptune.methods.base import Method
from daptune.names import own_names
from daptune.train.checkpoint import Checkpoint, pack_optimizer, read_checkpoint, saving, unpack_optimizer
from daptune.train.folder import FINISHED, anew, check_unused
from daptune.train.history import HISTORY_NAME, EpochRow, History, Progress
from daptune.train.schedule import TrainConfig, learning_rate, stage_of
from daptune.train.stopping import StopSignals

log = logging.getLogger("daptune")

ACCURACY = "accuracy"  # stored with the loss terms under this name
LOOK_EVERY = 10  # steps between copies of the losses to the host: each copy synchronises the device
VALIDATIONS = 50  # per run, about: with few images an epoch has one or two steps, and validation would dominate
LEAST_VALIDATIONS = 5
UNMEASURED: dict[str, Any] = {"val_accuracy": None, "val_macro_f1": None, "val_nll": None}


@dataclass
class State:
    """The part of a run's state that is saved as JSON in the checkpoint."""

    epoch: int = 0  # epochs done, which is the index of the current one
    step: int = 0  # steps done in that epoch
    images: int = 0  # training images seen in that epoch
    sums: dict[str, float] = field(default_factory=dict)  # of loss terms over those images
    seconds: float = 0.0  # spent in that epoch
    best: list[float] | None = None  # validation [accuracy or mAP, -nll] of the best epoch
    best_epoch: int | None = None  # from 1
    settled: bool = False  # the method's after_epoch was called for the current epoch
    finished: bool = False  # all epochs are done, or patience has run out
    rows: list[dict[str, Any]] = field(default_factory=list)


def identity_of(method: Method, train: ImageLoader, val: ImageLoader | None, config: TrainConfig) -> dict[str, Any]:
    """What must be the same in a checkpoint and the run that resumes it, as JSON values."""
    # how often to save and what to recompute does not change the result; `images` has what is drawn, `epochs` the steps
    left_out = ("checkpoint_seconds", "memory", "sampling", "epoch_shots", "steps")
    settings = {name: value for name, value in asdict(config).items() if name not in left_out}
    # earlier versions had no other
    if config.eps == TrainConfig.eps:
        del settings["eps"]
    if not config.text_steps:
        del settings["text_steps"], settings["text_views"]
    images, validation = (
        loader and {"fingerprint": loader.table.fingerprint(), "seed": loader.seed, "batches": loader.batches_per_epoch}
        for loader in (train, val)
    )
    identity: dict[str, Any] = {
        "method": method.name,
        "options": asdict(method.config),
        "classes": method.class_names if own_names(method.names) else method.names,
        "start": method.started_from,
        "backbone": {"sha256": method.backbone.sha256, "precision": method.backbone.precision},
        "train": settings,
        "images": images,
        "validation": validation,
    }
    if train.sampler is not None:
        identity["images"] |= {"groups": len(train.sampler.groups), "draws": len(train.sampler)}
    if method.sigmoids is not None:
        identity["multi_label"] = True
    if method.class_weight is not None:
        identity["class_weight"] = method.class_weight.tolist()
    plain: dict[str, Any] = json.loads(json.dumps(identity))
    return plain


def validations_of(train: ImageLoader, val: ImageLoader | None, config: TrainConfig) -> int:
    """About how many epochs of a run are validated; `config` is resolved.

    Where epochs draw a part of many images, there may be as many for validation: then they may cost no more passes of
    the image tower than training does.
    """
    if val is None or config.epoch_shots is None:
        return VALIDATIONS
    drawn = int(config.epochs or 0) * train.images_per_epoch
    return min(VALIDATIONS, max(LEAST_VALIDATIONS, drawn // len(val.table)))


def open_run(
    run_dir: Path | None, identity: dict[str, Any], defaults: Mapping[str, Any], *, resume: bool
) -> Checkpoint | None:
    """Read the checkpoint to resume from, in a `run_folder`. Raises `TrainingError` if that fails.

    defaults: of the method's options; an option that a run of an earlier version lacks was at its default.
    """
    if run_dir is None:
        if resume:
            raise TrainingError("Resuming needs the folder of the stopped run; name it with --resume.")
        return None
    check_unused(run_dir, resume=resume)
    if not resume:
        return None
    checkpoint = read_checkpoint(run_dir)
    if checkpoint is None:
        log.info("no checkpoint in %s yet: training starts from the beginning", run_dir)
    elif found := difference(_completed(checkpoint.identity, defaults), identity):
        if "draws" in identity["images"] and "draws" not in checkpoint.identity["images"]:
            found += " (a run of 16 images of each class, the default of earlier versions, needs --shots 16)"
        raise TrainingError(
            f"The run in {run_dir} was started with different settings: {found}; use the same ones with --resume; "
            f"{anew(run_dir)} and leave out --resume."
        )
    return checkpoint


def _completed(saved: dict[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    options = saved.get("options")
    plain: dict[str, Any] = json.loads(json.dumps(dict(defaults)))
    return saved | {"options": plain | options} if isinstance(options, dict) else saved


@dataclass
class Run:
    """A training run: counts steps, checks losses, saves checkpoints, and stops on request."""

    method: Method
    optimizer: torch.optim.Optimizer
    config: TrainConfig
    steps_per_epoch: int
    identity: dict[str, Any]
    run_dir: Path | None
    checkpoint: Checkpoint | None
    """The last one: first the one resumed from, then the ones saved."""
    progress: Callable[[Progress], None] | None
    signals: StopSignals
    validations: int = VALIDATIONS
    """About how many epochs are validated."""

    def __post_init__(self) -> None:
        self._epochs = int(self.config.epochs or 0)
        self._all_steps = self._epochs * self.steps_per_epoch
        self.state = State()
        self._best: dict[str, Tensor] = {}
        # (step, images, terms) of batches whose losses stay on the device until `_look`, to avoid synchronising
        self._unseen: list[tuple[int, int, dict[str, Tensor]]] = []
        self._epoch_began = self._saved_at = self._began = time.monotonic()
        self._steps_here = 0  # done by this process, to estimate the time left
        if self.checkpoint is not None:
            self._restore(self.checkpoint)
        self._begun = False  # whether the folder's history is that of this run
        if self.checkpoint is None:
            self._keep()  # in memory alone: a run that fails at once leaves the folder as it was
        else:
            self._begin()

    @property
    def total_steps(self) -> int:
        """Steps done since the start of the run."""
        return self.state.epoch * self.steps_per_epoch + self.state.step

    @property
    def lr(self) -> float:
        """Learning rate of the next step."""
        return self._rate(self.total_steps)

    @property
    def stage(self) -> int:
        """The method's stage of the next step."""
        return stage_of(self.total_steps, self._all_steps, self.method.stages)[0]

    @property
    def validates(self) -> bool:
        """Whether the current epoch is validated: about `validations` epochs are, and the last."""
        number = self.state.epoch + 1
        return number % -(-self._epochs // self.validations) == 0 or number == self._epochs

    def note(self, terms: Mapping[str, Tensor], images: int) -> None:
        """Record the loss terms (scalars), and the accuracy as ACCURACY, of a batch with `images` images."""
        row = {name: torch.as_tensor(v, device=self.method.device).detach().float() for name, v in terms.items()}
        self._unseen.append((self.total_steps, images, row))

    def end_step(self) -> None:
        self.state.step += 1
        self._steps_here += 1
        on_cpu, step = self.method.device.type == "cpu", self.state.step
        if on_cpu or step % LOOK_EVERY == 0 or step == self.steps_per_epoch:
            self._look()
        self.pause()

    def pause(self) -> None:
        """Stop if requested; save if the last checkpoint is old enough."""
        asked = self.signals.asked
        if asked or time.monotonic() - self._saved_at >= self.config.checkpoint_seconds:
            self._save()
        if asked:
            kept = f"its state is in {self.run_dir}" if self.run_dir else "nothing is saved, since it had no run folder"
            advice = "; continue with --resume." if self.run_dir else "."
            raise Interrupted(
                f"Training was stopped after step {self.total_steps} of {self._all_steps}; {kept}{advice}"
            )

    def settle_epoch(self) -> None:
        """Call the method's `after_epoch` once per epoch, also if the run was stopped during validation."""
        if not self.state.settled:
            self.method.after_epoch(self.state.epoch + 1, self._epochs)
            self.state.settled = True

    def end_epoch(self, measured: Measured | None) -> None:
        """Write the epoch's row, keep the parameters if they are the best so far, and save."""
        self._look()
        if measured is not None and not math.isfinite(measured.nll):
            self._fail(f"the validation loss became {measured.nll}", self.total_steps - 1)
        state, config = self.state, self.config
        state.epoch, state.step, state.settled = state.epoch + 1, 0, False
        means = {name: total / state.images for name, total in state.sums.items()}
        row = EpochRow(
            epoch=state.epoch,
            step=self.total_steps,
            lr=self._rate(self.total_steps - 1),
            accuracy=means.pop(ACCURACY, None),
            losses=means,
            seconds=round(self._epoch_seconds(), 3),
            **UNMEASURED | ({} if measured is None else measured.validation),
        )
        state.rows.append(asdict(row))
        if row.val_map is None:  # earlier versions know no such field
            del state.rows[-1]["val_map"]
        state.images, state.sums, state.seconds, self._epoch_began = 0, {}, 0.0, time.monotonic()
        if measured is not None:
            # ties in accuracy are common with few images: the lower loss decides
            score = [measured.headline, -measured.nll]
            if state.best is None or score > state.best:
                state.best, state.best_epoch = score, state.epoch
                self._best = Checkpoint.copied(self.method.state_dict())
            elif config.patience is not None and state.epoch - (state.best_epoch or 0) >= config.patience:
                state.finished = True
        state.finished = state.finished or state.epoch == self._epochs
        self._append(state.rows[-1])
        self._save()
        if not state.finished:
            self.pause()

    def finish(self) -> History:
        """Load the selected parameters and return the history."""
        if self._best and self.config.select == "best_val":
            self.method.load_state_dict(self._best)
        return History(tuple(EpochRow(**row) for row in self.state.rows), self.state.best_epoch, self._best)

    def _look(self) -> None:
        """Copy losses to the host, in one transfer, and stop if one is not finite."""
        if not self._unseen:
            return
        flat = torch.stack([value for _, _, terms in self._unseen for value in terms.values()])
        values = iter(flat.tolist())
        losses: dict[str, float] = {}
        for step, images, terms in self._unseen:
            losses = {name: next(values) for name in terms}
            for name, value in losses.items():
                if not math.isfinite(value):
                    self._fail(f"{name} became {value}", step)
                self.state.sums[name] = self.state.sums.get(name, 0.0) + value * images
            self.state.images += images
        self._unseen.clear()
        if self.progress is not None:
            self.progress(self._tell(losses))

    def _tell(self, losses: dict[str, float]) -> Progress:
        state = self.state
        losses.pop(ACCURACY, None)
        spent = time.monotonic() - self._began
        return Progress(
            epoch=state.epoch + 1,
            epochs=self._epochs,
            step=self.total_steps,
            steps=self._all_steps,
            losses=losses,
            accuracy=state.sums[ACCURACY] / state.images if ACCURACY in state.sums else None,
            val_accuracy=next(
                (v for row in reversed(state.rows) if (v := EpochRow(**row).val_headline) is not None), None
            ),
            lr=self._rate(self.total_steps - 1),
            seconds_left=spent / self._steps_here * (self._all_steps - self.total_steps),
        )

    def _rate(self, step: int) -> float:
        own = stage_of(step, self._all_steps, self.method.stages)[1]
        return learning_rate(self.config, step, self.steps_per_epoch, len(own), own.start)

    def _epoch_seconds(self) -> float:
        return self.state.seconds + time.monotonic() - self._epoch_began

    def _save(self) -> None:
        """Keep the state, also in the folder."""
        self._keep()
        if self.run_dir is not None and self.checkpoint is not None:
            self._begin()
            self.checkpoint.write(self.run_dir)

    def _begin(self) -> None:
        """Truncate the history to the checkpoint, or replace that of an earlier run, whose end is no longer noted."""
        if self.run_dir is not None and not self._begun:
            lines = "".join(json_line(row) for row in self.state.rows)
            with saving(self.run_dir / HISTORY_NAME):
                (self.run_dir / FINISHED).unlink(missing_ok=True)
                write(self.run_dir / HISTORY_NAME, lines.encode())
            self._begun = True

    def _keep(self) -> None:
        """Keep the state in memory."""
        self._look()
        bad = [n for n, p in self.method.named_parameters() if p.requires_grad and not p.isfinite().all()]
        if bad:  # a finite loss may have an infinite gradient
            self._fail(f"{bad[0]} is not finite", self.total_steps - 1)
        state = asdict(self.state) | {"seconds": self._epoch_seconds()}
        checkpoint = Checkpoint(self.identity, state)
        checkpoint.put("method", self.method.state_dict())
        checkpoint.put("running", self.method.running_state())
        checkpoint.put("best", self._best)
        checkpoint.put("optimizer", pack_optimizer(self.optimizer, self.method))
        self.checkpoint, self._saved_at = checkpoint, time.monotonic()

    def _restore(self, checkpoint: Checkpoint) -> None:
        try:
            self.state = State(**copy.deepcopy(checkpoint.state))
            self.method.load_state_dict(checkpoint.section("method"))
            for name, tensor in self.method.running_state().items():
                tensor.copy_(checkpoint.section("running")[name])
            self._best = checkpoint.section("best")
            unpack_optimizer(checkpoint.section("optimizer"), self.optimizer, self.method)
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            reason = " ".join(str(error).split())
            raise TrainingError(
                f"The checkpoint in {self.run_dir} does not fit this method ({reason}); train in another folder."
            ) from error
        log.info("resumed after epoch %d, step %d", self.state.epoch, self.state.step)

    def _append(self, row: dict[str, Any]) -> None:
        if self.run_dir is not None and not self._begun:
            self._begin()
        elif self.run_dir is not None:
            with saving(self.run_dir / HISTORY_NAME), open(self.run_dir / HISTORY_NAME, "a", encoding="utf-8") as file:
                file.write(json_line(row))

    def _fail(self, what: str, step: int) -> NoReturn:
        """Restore the parameters of the last checkpoint and raise `TrainingError` with advice."""
        self._unseen.clear()
        kept = "the initial parameters are kept"
        if self.checkpoint is not None:
            self.method.load_state_dict(self.checkpoint.section("method"))
            at = self.checkpoint.state["epoch"] * self.steps_per_epoch + self.checkpoint.state["step"]
            kept = f"the parameters of step {at} are kept"
        rate = self._rate(max(step, 0))
        precision = self.method.backbone.precision
        other = "" if precision == "fp32" else f", or --precision fp32 instead of {precision}"
        raise TrainingError(
            f"Training stopped at step {step + 1}, epoch {step // self.steps_per_epoch + 1}: {what} "
            f"with learning rate {rate:g}; {kept}. Use a lower --lr (try {float(self.config.lr or 0.0) / 10:g}){other}."
        )
