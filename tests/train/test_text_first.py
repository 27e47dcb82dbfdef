"""The text prompt alone, on features that are computed once: against the loop written out, and at its edges."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from daptune.clip.backbone import Backbone, load_backbone
from daptune.data.augment import epoch_order
from daptune.data.loader import ImageLoader
from daptune.data.table import ImageTable
from daptune.errors import Interrupted, TrainingError
from daptune.methods import METHODS, Method, make_config
from daptune.train import History, Progress, TrainConfig, fit_method
from daptune.train.stopping import StopSignals
from daptune.train.text_first import learn_text_first

from .small import same

NAMES = ("cat", "red fox", "owl")
CONFIG = TrainConfig(epochs=2, text_steps=5, text_views=2, batch_size=4, lr=0.02)


@pytest.fixture(scope="module")
def backbone(made_up_backbone: str) -> Backbone:
    return load_backbone(made_up_backbone, precision="fp32")


@pytest.fixture
def loader(backbone: Backbone) -> ImageLoader:
    """Eleven images of three classes: 2, 3 and 6."""
    labels = np.array([0, 1, 2, 2, 1, 2, 0, 2, 1, 2, 2])
    noise = np.random.default_rng(1).integers(0, 120, (11, 40, 36, 3))
    pixels = (noise + 50 * labels[:, None, None, None]).astype(np.uint8)
    table = ImageTable(tuple(pixels), labels, NAMES)
    return CONFIG.loader(table, backbone, CONFIG.batch_size, seed=3, training=True)


def dapt(backbone: Backbone) -> Method:
    return METHODS["dapt"](backbone, NAMES, make_config("dapt", {"text_tokens": 3, "vision_tokens": 2}), seed=2)


def test_it_is_adam_on_the_features_of_the_first_views(backbone: Backbone, loader: ImageLoader) -> None:
    """L_CE + 0.1 L_inter of the text prompt alone, with the rate's warm-up and cosine over its own five steps."""
    method, other = dapt(backbone), dapt(backbone)
    method.before_fit(loader)
    before = method.vision_prompt.detach().clone()
    learn_text_first(method, loader, CONFIG.resolved(2), None, StopSignals())
    assert torch.equal(method.vision_prompt, before) and method.vision_prompt.grad is None

    with torch.no_grad():
        batches = [batch for epoch in (0, 1) for batch in loader.epoch(epoch)]
        z = torch.cat([F.normalize(backbone.clip.encode_image(x, before[None]).float(), dim=-1) for x, _ in batches])
    labels = torch.cat([y for _, y in batches])
    assert len(labels) == 16  # two views of the two whole batches of an epoch
    v = other.text_prompt
    adam = torch.optim.AdamW([v], lr=0.02, weight_decay=0.0)
    for step in range(5):
        rows = torch.from_numpy(epoch_order(16, CONFIG.seed, step // 4))[(step % 4) * 4 :][:4]
        adam.param_groups[0]["lr"] = 0.02 * (1 + math.cos(math.pi * step / 5)) / 2
        w = other.prompts.features(v)
        distances = torch.stack([(w[i] - w[j]).square().sum() for i in range(3) for j in range(3) if i != j])
        loss = F.cross_entropy(other.scale * z[rows] @ w.T, labels[rows]) + 0.1 * torch.exp(-2 * distances).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    torch.testing.assert_close(method.text_prompt, v, atol=1e-5, rtol=1e-4)
    assert (method.text_prompt - dapt(backbone).text_prompt).abs().max() > 0.01


class Counted:
    """Counts the images that pass through a backbone's tower."""

    def __init__(self, backbone: Backbone) -> None:
        self.images = 0
        self.handle = backbone.clip.visual.conv1.register_forward_hook(self._count)

    def _count(self, module: torch.nn.Module, given: tuple[torch.Tensor, ...], found: object) -> None:
        self.images += len(given[0])


def passes(backbone: Backbone, loader: ImageLoader, config: TrainConfig) -> int:
    counted, method = Counted(backbone), dapt(backbone)
    try:
        fit_method(method, loader, config)
    finally:
        counted.handle.remove()
    return counted.images


def test_the_default_takes_a_fifth_of_the_passes(backbone: Backbone, loader: ImageLoader) -> None:
    """Passes forward and back count three times a pass forward."""
    given = replace(CONFIG, epochs=None, text_steps=None, text_views=4)
    forward = 4 * 8 + 11  # four views of an epoch's two batches, and the prototypes
    joint = passes(backbone, loader, given) - forward
    assert joint == 32 * 4
    whole = passes(backbone, loader, replace(given, text_steps=0, steps=200)) - 11
    assert whole == 200 * 4
    assert 3 * joint + forward < 3 * whole / 5


@pytest.mark.parametrize(
    ("given", "text_first", "text_steps", "epochs"),
    [
        ({}, True, 200, 8),
        ({}, False, 0, 50),
        ({"epochs": 7}, True, 0, 7),
        ({"steps": 100}, True, 0, 25),
        ({"text_steps": 0}, True, 0, 50),
        ({"text_steps": 30}, True, 30, 8),
        ({"text_steps": 30, "epochs": 3}, True, 30, 3),
    ],
)
def test_it_is_the_default_where_no_length_is_given(
    given: dict[str, int], text_first: bool, text_steps: int, epochs: int
) -> None:
    """Four steps an epoch; 32 joint steps, or 200 without the first stage."""
    found = TrainConfig(**given).resolved(4, text_first=text_first)
    assert (found.text_steps, found.epochs) == (text_steps, epochs)
    assert found.resolved(4, text_first=text_first) == found


def trained(backbone: Backbone, loader: ImageLoader, run: Path, **how: object) -> tuple[Method, History]:
    method = dapt(backbone)
    return method, fit_method(method, loader, CONFIG, run_dir=run, **how)


def test_a_resumed_run_does_not_repeat_it(backbone: Backbone, loader: ImageLoader, tmp_path: Path) -> None:
    whole, _ = trained(backbone, loader, tmp_path / "whole")
    asked: Iterator[bool] = iter([False] * 12 + [True] * 9)  # 4 batches encoded, 5 text steps, then the joint ones
    with pytest.raises(Interrupted, match="after step 3 of 4"):
        trained(backbone, loader, tmp_path / "run", stop=lambda: next(asked))
    seen: list[int] = []
    found, _ = trained(backbone, loader, tmp_path / "run", resume=True, progress=lambda state: seen.append(state.epoch))
    assert seen == [2] and same(whole.state_dict(), found.state_dict())


@pytest.mark.parametrize("after", [1, 6])
def test_stopped_within_it_the_run_starts_again(
    after: int, backbone: Backbone, loader: ImageLoader, tmp_path: Path
) -> None:
    """While features are computed, and between two steps."""
    whole, _ = trained(backbone, loader, tmp_path / "whole")
    asked = iter([False] * after + [True] * 9)
    with pytest.raises(Interrupted, match="before the first joint step; nothing is saved"):
        trained(backbone, loader, tmp_path / "run", stop=lambda: next(asked))
    found, _ = trained(backbone, loader, tmp_path / "run", resume=True)
    assert same(whole.state_dict(), found.state_dict())


def test_it_reports_as_epoch_0(backbone: Backbone, loader: ImageLoader) -> None:
    told: list[Progress] = []
    fit_method(dapt(backbone), loader, CONFIG, progress=told.append)
    first = [state for state in told if state.epoch == 0]
    assert [(state.step, state.steps) for state in first] == [(step, 5) for step in range(1, 6)]
    assert [(state.step, state.steps) for state in told[5:]] == [(step, 4) for step in range(1, 5)]
    assert first[-1].seconds_left == 0 and {"cross_entropy", "inter", "total"} <= first[0].losses.keys()


def test_a_loss_that_is_not_finite_is_told(backbone: Backbone, loader: ImageLoader) -> None:
    method = dapt(backbone)
    with torch.no_grad():
        method.text_prompt[0, 0] = math.nan
    with pytest.raises(TrainingError, match=r"step 1 of the text prompt's 5: .*Use a lower --lr \(try 0\.002\)"):
        fit_method(method, loader, CONFIG)


def test_other_methods_refuse_it(backbone: Backbone, loader: ImageLoader) -> None:
    for name in ("vpt", "coop", "maple"):
        with pytest.raises(TrainingError, match=f"{name} does not learn its text prompt first; leave out text_steps"):
            fit_method(METHODS[name](backbone, NAMES), loader, CONFIG)
