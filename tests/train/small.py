"""A backbone, a method and a loader small enough that a whole run takes milliseconds, for the tests of training.

`python -m tests.train.small crash|kill|signal FOLDER` runs training in forked children and ends them in various ways;
the children start in milliseconds because torch is loaded once, before them, and has no threads yet.
"""

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from daptune.clip.backbone import Backbone
from daptune.clip.model import CLIP, CLIPConfig
from daptune.clip.preprocess import Preprocess
from daptune.clip.tokenizer import Tokenizer
from daptune.data.loader import Batch, ImageLoader
from daptune.data.table import ImageTable
from daptune.errors import Interrupted
from daptune.methods import Method, MethodConfig, SupportSet
from daptune.train import History, TrainConfig, fit_method
from daptune.train.checkpoint import FILE_NAME, read_checkpoint

CLASSES, SIDE = 3, 4


@cache
def small_backbone() -> Backbone:
    """A CLIP of one layer for images of 4 x 4 pixels. `SmallMethod` learns on the pixels and leaves it alone."""
    sizes = CLIPConfig(
        embed_dim=8, image_size=SIDE, patch_size=SIDE, vision_width=8, vision_layers=1, vision_heads=1, vision_mlp=8,
        context_length=77, vocab_size=49408, text_width=8, text_layers=1, text_heads=1, text_mlp=8,
    )  # fmt: skip
    clip = CLIP(sizes)
    for parameter in clip.parameters():
        parameter.data.zero_()
    preprocess = Preprocess(SIDE, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))
    return Backbone(clip, Tokenizer(), preprocess, "small", "0" * 64, "bf16")


class SmallLoader(ImageLoader):
    """Images of 4 x 4 pixels, each class brighter than the one before; batches come `delay` seconds apart."""

    def __init__(
        self, images: int = 22, batch_size: int = 4, seed: int = 0, delay: float = 0.0, relabel: int = 0
    ) -> None:
        labels = np.arange(images) % CLASSES
        noise = np.random.default_rng(7).normal(size=(images, SIDE, SIDE, 3))
        pixels = 80 + 40 * (labels[:, None, None, None] + noise)
        names = tuple(f"class {number}" for number in range(CLASSES))
        table = ImageTable(tuple(pixels.clip(0, 255).astype(np.uint8)), (labels + relabel) % CLASSES, names)
        super().__init__(
            table, small_backbone().preprocess, batch_size,
            seed=seed, augment=True, shuffle=True, drop_last=False, workers=0,
        )  # fmt: skip
        self.delay = delay

    def epoch(self, epoch: int, start_batch: int = 0) -> Iterator[Batch]:
        for batch in super().epoch(epoch, start_batch):
            time.sleep(self.delay)
            yield batch


@dataclass(frozen=True)
class SmallConfig(MethodConfig):
    dropout: float = 0.3
    inter_weight: float = 0.1
    average: bool = True


class SmallMethod(Method):
    """Has what can go wrong in resuming: dropout, a buffer that moves with the steps, one that before_fit makes, and a
    sum over epochs that takes the place of what was learned after the last one."""

    name = "small"
    title = "A method of tests"
    year = 2026
    config_class = SmallConfig
    config: SmallConfig
    prototypes: Tensor

    def __init__(self, config: SmallConfig | None = None, classes: int = CLASSES) -> None:
        super().__init__(small_backbone(), [f"class {i}" for i in range(classes)], config, seed=0)
        self.settled: list[tuple[int, int]] = []
        self.fitted = 0

    def build(self, generator: torch.Generator) -> None:
        shape = len(self.class_names), 3 * SIDE * SIDE
        self.prompt = nn.Parameter(torch.randn(shape, generator=generator) * 0.02)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("prototypes", None, persistent=False)
        self.register_buffer("sum", torch.zeros(shape), persistent=False)

    def before_fit(self, train: SupportSet, val: SupportSet | None = None) -> None:
        self.fitted += 1
        images, _ = zip(*train.evaluation(), strict=True)
        self.prototypes = torch.cat(images).mean(0).flatten() + 1e-3 * torch.randn(3 * SIDE * SIDE)

    @torch.no_grad()
    def after_epoch(self, epoch: int, epochs: int) -> None:
        self.settled.append((epoch, epochs))
        self.sum += epoch * self.prompt
        if epoch == epochs and self.config.average:
            self.prompt.copy_(self.sum / sum(range(1, epochs + 1)))

    def running_state(self) -> dict[str, Tensor]:
        return {"sum": self.sum}

    def text_features(self) -> Tensor:
        return self.prompt

    def logits(self, images: Tensor) -> Tensor:
        x = F.dropout(images.flatten(1) - self.prototypes, self.config.dropout, self.training)
        return x @ self.class_text_features().T

    def losses(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        if self.training:
            self.steps += 1
        terms = {
            "cross_entropy": self.cross_entropy(self.logits(images), labels),
            "inter": self.class_text_features().square().mean(),
        }
        return terms | {"total": terms["cross_entropy"] + self.config.inter_weight * terms["inter"]}


CONFIG = TrainConfig(epochs=3, select="best_val", accumulate=2, seed=5, checkpoint_seconds=0)


def train(
    run_dir: Path | None = None,
    *,
    method: SmallMethod | None = None,
    config: TrainConfig = CONFIG,
    loader: SmallLoader | None = None,
    delay: float = 0.0,
    **options: Any,
) -> tuple[SmallMethod, History]:
    method = method or SmallMethod()
    options.setdefault("val", SmallLoader(9, seed=1))
    history = fit_method(method, loader or SmallLoader(delay=delay), config, run_dir=run_dir, **options)
    return method, history


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def lines(run_dir: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (run_dir / "history.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def ends_like(run_dir: Path, reference: Path) -> bool:
    """Whether two finished runs have the same tensors, bit for bit, the same history and no leftovers."""
    a, b = read_checkpoint(run_dir), read_checkpoint(reference)
    assert a is not None and b is not None and a.state["finished"]
    files = {p.name for p in run_dir.iterdir()}
    return same(a.tensors, b.tensors) and lines(run_dir) == lines(reference) and files <= {FILE_NAME, "history.jsonl"}


def in_child(action: Callable[[], None], during: Callable[[int], None] = lambda pid: None) -> int:
    """Run `action` in a forked process; returns its exit code, or minus the signal that ended it."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            action()
            code = 0
        except Interrupted as stopped:
            code = 3 if "--resume" in str(stopped) else 4
        except KeyboardInterrupt:
            code = 5
        finally:
            os._exit(code)
    during(pid)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def die_at(moment: int) -> None:
    """SIGKILL to this process just before its `moment`-th write to disk, rename, history line or optimizer step."""
    left = [moment]

    def deadly(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return wrapped

    os.fsync, os.replace = deadly(os.fsync), deadly(os.replace)
    torch.optim.AdamW.step = deadly(torch.optim.AdamW.step)  # type: ignore[method-assign]
    from daptune.train import run

    run.Run._append = deadly(run.Run._append)  # type: ignore[method-assign]


def crash(folder: Path) -> None:
    """Die at every moment in turn, and resume once; four steps with two ends of an epoch have every kind of moment."""
    config = replace(CONFIG, epochs=2, accumulate=3)
    train(folder / "whole", config=config)
    for moment in range(1, 1000):
        run_dir = folder / f"run{moment:03}"

        def dying(run_dir: Path = run_dir, moment: int = moment) -> None:
            die_at(moment)
            train(run_dir, config=config)

        code = in_child(dying)
        if code == 0:  # it was over before the moment came
            break
        if code != -signal.SIGKILL or in_child(lambda d=run_dir: train(d, config=config, resume=True)) != 0:
            raise RuntimeError(f"moment {moment}: ended with {code}")


def kill(folder: Path) -> None:
    """SIGKILL after random times, again and again in one run, until it comes through."""
    draw = random.Random(3)
    for run in range(3):

        def later(pid: int) -> None:
            time.sleep(draw.uniform(0.01, 0.15))
            os.kill(pid, signal.SIGKILL)

        run_dir = folder / f"run{run}"
        kills = 0
        while kills < 8 and in_child(lambda d=run_dir: train(d, resume=True, delay=0.01), later) == -signal.SIGKILL:
            kills += 1
        (folder / f"kills{run}").write_text(str(kills))
        in_child(lambda d=run_dir: train(d, resume=True))


def stop(folder: Path) -> None:
    """SIGTERM and SIGINT at random steps; two SIGINTs at once."""
    draw = random.Random(4)
    for number in (signal.SIGTERM, signal.SIGINT):
        for run in range(3):
            run_dir = folder / f"run-{number.name}-{run}"
            at = draw.randrange(1, 9)

            def ask(progress: Any, number: int = number, at: int = at) -> None:
                if progress.step == at:
                    os.kill(os.getpid(), number)

            code = in_child(lambda d=run_dir, ask=ask: train(d, progress=ask))
            if code != 3 or in_child(lambda d=run_dir: train(d, resume=True)) != 0:
                raise RuntimeError(f"{number.name} at {at}: ended with {code}")

    def twice(progress: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    code = in_child(lambda: train(folder / "run-twice", progress=twice))
    if code != 5 or in_child(lambda: train(folder / "run-twice", resume=True)) != 0:
        raise RuntimeError(f"two SIGINTs: ended with {code}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    train()  # loads what torch loads at first use, once for all children
    {"crash": crash, "kill": kill, "signal": stop}[sys.argv[1]](Path(sys.argv[2]))
