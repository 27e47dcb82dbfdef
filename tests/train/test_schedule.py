"""Learning rates against the schedulers that they are the closed form of; loaders; what a configuration refuses."""

import math
import warnings
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from daptune import presets
from daptune.clip.backbone import Backbone
from daptune.clip.preprocess import Preprocess
from daptune.clip.tokenizer import Tokenizer
from daptune.data import Augmentation, ImageLoader, ImageTable
from daptune.data.cache import Decoder
from daptune.data.sampling import Sampler, ViewSampler
from daptune.errors import MethodError, TrainingError
from daptune.methods import make_config
from daptune.train.schedule import (
    DEFAULT_LR,
    DEFAULT_WEIGHT_DECAY,
    TrainConfig,
    build_optimizer,
    learning_rate,
)

from ..clip.test_model import made_up_clip


@pytest.mark.parametrize(("epochs", "warmup"), [(50, 1), (100, 1), (200, 1), (5, 0), (7, 3), (1, 1)])
def test_cosine_is_the_papers(epochs: int, warmup: int) -> None:
    """As Dassl steps it: a constant warm-up, then torch's own cosine with T_max = epochs, stepped once an epoch."""
    config = TrainConfig(epochs=epochs, lr=20, schedule="cosine_per_epoch", warmup_epochs=warmup)
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=20)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the scheduler wants optimizer.step() between, which does not matter here
        for epoch in range(epochs):
            if epoch > warmup:
                cosine.step()
            expected = 1e-5 if epoch < warmup else cosine.get_last_lr()[0]
            for step in (0, 6):
                assert learning_rate(config, epoch * 7 + step, 7) == pytest.approx(expected, rel=1e-9)


def test_cosine_as_numbers() -> None:
    config = TrainConfig(epochs=200, lr=0.002, schedule="cosine_per_epoch")
    rates = [learning_rate(config, epoch, 1) for epoch in range(200)]
    assert rates[0] == 1e-5 and rates[1] == 0.002 and rates[101] == pytest.approx(0.001)
    assert rates[-1] == pytest.approx(0.002 * (1 + math.cos(math.pi * 198 / 200)) / 2) and rates[-1] > 0


def test_cosine_by_steps_rises_then_falls() -> None:
    config = TrainConfig(epochs=20, lr=0.1, warmup_epochs=1, warmup_lr=0.01)
    rates = [learning_rate(config, step, 10) for step in range(200)]
    assert rates[0] == 0.01 and rates[5] == pytest.approx(0.055) and rates[10] == 0.1
    assert all(a < b for a, b in pairwise(rates[:11]))
    assert all(a > b for a, b in pairwise(rates[10:]))
    assert rates[105] == pytest.approx(0.05) and 0 < rates[-1] < 1e-4


def test_a_warm_up_is_at_most_a_tenth() -> None:
    config = TrainConfig(epochs=1, lr=0.1, warmup_epochs=1)
    assert learning_rate(config, 10, 100) == 0.1
    assert learning_rate(config, 0, 1) == 0.1
    for steps in (105, 109):  # ten steps of it, and not a fraction more
        assert learning_rate(config, 9, steps) < 0.1 == learning_rate(config, 10, steps)


def test_part_of_an_epoch_may_be_warm_up() -> None:
    """A quarter of 12 steps rises by thirds; half of 5 is rounded to 2."""
    config = TrainConfig(epochs=20, lr=0.4, warmup_epochs=0.25, warmup_lr=0.1)
    assert [learning_rate(config, step, 12) for step in range(4)] == pytest.approx([0.1, 0.2, 0.3, 0.4])
    half = TrainConfig(epochs=20, lr=0.4, warmup_epochs=0.5, warmup_lr=0.1)
    assert [learning_rate(half, step, 5) for step in range(3)] == pytest.approx([0.1, 0.25, 0.4])


def test_constant() -> None:
    config = TrainConfig(epochs=3, lr=0.1, schedule="constant")
    assert {learning_rate(config, step, 5) for step in range(15)} == {0.1}


def test_crops_and_flips_are_declared_once() -> None:
    assert TrainConfig().augmentation == Augmentation()
    assert TrainConfig(min_crop=0.08, flip=0.5).augmentation == Augmentation(scale=(0.08, 1.0), flip=0.5)


def test_defaults_are_filled_in() -> None:
    for optimizer in ("adamw", "adam", "sgd"):
        config = TrainConfig(optimizer=optimizer).resolved(1)
        assert config.lr == DEFAULT_LR[optimizer]
        assert config.weight_decay == DEFAULT_WEIGHT_DECAY[optimizer]
        assert config.resolved(7) == config
    assert TrainConfig(weight_decay=0, optimizer="sgd").resolved(1).weight_decay == 0
    assert (DEFAULT_LR, DEFAULT_WEIGHT_DECAY) == (
        {"adamw": 0.01, "adam": 0.01, "sgd": 0.002},
        {"adamw": 0.0, "adam": 0.0, "sgd": 5e-4},
    )


def test_a_method_may_have_a_rate_of_its_own_with_adamw() -> None:
    rates = [
        TrainConfig(optimizer=optimizer, lr=lr).resolved(1, own).lr
        for optimizer, lr, own in (("adamw", None, 0.3), ("sgd", None, 0.3), ("adamw", 0.7, 0.3), ("adamw", None, None))
    ]
    assert rates == [0.3, 0.002, 0.7, 0.01]


@pytest.mark.parametrize("optimizer", ["adamw", "adam"])
def test_adam_by_its_formulas(optimizer: str) -> None:
    """Kingma & Ba, algorithm 1, in float64; decoupled decay as Loshchilov & Hutter, algorithm 2."""
    config = TrainConfig(optimizer=optimizer, lr=0.1, weight_decay=0.25, eps=0.5).resolved(1)
    start = [2.0, -3.0, 0.5]
    module = torch.nn.Module()
    module.weight = torch.nn.Parameter(torch.tensor(start))
    stepper = build_optimizer(module, config)
    gradients = [[1.0, 0.2, -4.0], [0.5, -1.0, 2.0]]
    for gradient in gradients:
        module.weight.grad = torch.tensor(gradient)
        stepper.step()
    for place, value in enumerate(start):
        first = second = 0.0
        for step, gradient in enumerate(gradients, 1):
            slope = gradient[place] + (0.25 * value if optimizer == "adam" else 0.0)
            value -= 0.1 * 0.25 * value if optimizer == "adamw" else 0.0
            first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope**2
            mean, spread = first / (1 - 0.9**step), second / (1 - 0.999**step)
            value -= 0.1 * mean / (spread**0.5 + 0.5)
        assert float(module.weight[place].detach()) == pytest.approx(value, rel=1e-6)


def test_few_images_are_seen_more_often() -> None:
    assert [TrainConfig().resolved(steps).epochs for steps in (1, 7, 19, 20, 21, 500)] == [200, 29, 11, 10, 10, 10]
    assert TrainConfig(epochs=3).resolved(1).epochs == 3
    assert TrainConfig().resolved(0).epochs == 200


def test_the_papers_preset_is_a_configuration() -> None:
    for shots, epochs in ((1, 50), (2, 100), (4, 100), (8, 200), (16, 200)):
        config = TrainConfig(**presets.resolve("paper", "dapt", shots=shots, dataset="eurosat").train)
        assert (config.epochs, config.lr, config.optimizer, config.weight_decay) == (epochs, 20, "sgd", 5e-4)
        assert config.schedule == "cosine_per_epoch"  # the one by epochs


def test_the_fast_preset_is_a_fifth_of_the_papers_epochs_from_words() -> None:
    for method in ("coop", "dapt"):
        for shots in (1, 2, 4):
            fast, paper = (presets.resolve(name, method, shots=shots) for name in ("fast", "paper"))
            assert TrainConfig(**fast.train).epochs == paper.train["epochs"] / 5
            assert make_config(method, fast.method).context_init == "a photo of a"
        # of more images, the steps that there are without a preset are fewer still
        assert TrainConfig(**presets.resolve("fast", method, shots=16).train) == TrainConfig(lr=0.03)
    with pytest.raises(MethodError, match="preset 'fast' has settings for coop, dapt, not for 'vp'"):
        presets.resolve("fast", "vp", shots=4)
    with pytest.raises(MethodError, match="preset 'fast' is the same for all data, found dataset 'eurosat'"):
        presets.resolve("fast", "dapt", shots=4, dataset="eurosat")


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 1, "batch_size": 1, "accumulate": 1, "views": 1, "seed": 0},
        {"weight_decay": 0, "momentum": 0, "warmup_epochs": 0, "warmup_lr": 0, "checkpoint_seconds": 0, "flip": 0},
        {"min_crop": 1, "flip": 1, "lr": 5, "clip_norm": 1e-9, "compile": True},
        {"patience": 1, "select": "best_val"},
        {"warmup_epochs": 2.0, "schedule": "cosine_per_epoch"},
        {"warmup_epochs": 0.5, "schedule": "constant"},
        {"memory": "low", "augment_on": "device", "schedule": "cosine", "optimizer": "sgd"},
    ],
    ids=str,
)
def test_the_bounds_themselves_are_allowed(change: dict[str, Any]) -> None:
    config = TrainConfig(**change)
    assert {name: getattr(config, name) for name in change} == change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"optimizer": "adamv"}, "optimizer='adamv' is not known. Did you mean 'adam'?"),
        ({"eps": 0}, "eps must be a number above 0, not 0"),
        ({"schedule": "linear"}, "schedule='linear' is not known"),
        ({"select": "bestval"}, "Did you mean 'best_val'?"),
        ({"augment_on": "gpu"}, "augment_on='gpu' is not known. Choose from: device, workers."),
        ({"compile": "yes"}, "compile must be true or false, not 'yes'"),
        ({"epochs": 0}, "epochs must be a whole number at least 1, not 0"),
        ({"epochs": 2.5}, "epochs must be a whole number"),
        ({"epochs": True}, "epochs must be a whole number"),
        ({"batch_size": -1}, "batch_size must be"),
        ({"accumulate": 0}, "accumulate must be"),
        ({"lr": 0}, "lr must be a number above 0, not 0"),
        ({"lr": float("nan")}, "lr must be a number"),
        ({"lr": "fast"}, "lr must be a number above 0, not 'fast'"),
        ({"weight_decay": -1.0}, "weight_decay must be a number at least 0"),
        ({"momentum": -0.1}, "momentum must be"),
        ({"clip_norm": 0.0}, "clip_norm must be a number above 0"),
        ({"seed": -1}, "seed must be a whole number at least 0"),
        ({"checkpoint_seconds": -5}, "checkpoint_seconds must be"),
        ({"warmup_epochs": 0.5, "schedule": "cosine_per_epoch"}, "must be whole with schedule='cosine_per_epoch'"),
        ({"patience": 3}, "patience=3 needs select='best_val'"),
        ({"sampling": "views"}, "draws from a fixed number of views; give it, for example views=20"),
        ({"patience": 0, "select": "best_val"}, "patience must be a whole number at least 1, not 0"),
        ({"momentum": float("inf")}, "momentum must be a number at least 0, not inf"),
        ({"lr": True}, "lr must be a number above 0, not True"),
        ({"min_crop": 0}, "min_crop must be a number above 0, not 0"),
        ({"min_crop": 1.01}, "min_crop must be a share of at most 1, not 1.01"),
        ({"flip": 1.5}, "flip must be a share of at most 1, not 1.5"),
        ({"flip": -0.1}, "flip must be a number at least 0, not -0.1"),
        ({"memory": "high"}, "memory='high' is not known. Choose from: fast, low."),
    ],
)
def test_what_cannot_be_is_said_in_one_line(change: dict[str, Any], words: str) -> None:
    with pytest.raises(TrainingError) as caught:
        TrainConfig(**change)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_optimizers_have_the_papers_settings() -> None:
    module = nn.Linear(2, 2)
    module.bias.requires_grad_(False)
    sgd = build_optimizer(module, TrainConfig(optimizer="sgd").resolved(1))
    assert isinstance(sgd, torch.optim.SGD)
    group = sgd.param_groups[0]
    assert (group["momentum"], group["weight_decay"], group["nesterov"], group["dampening"]) == (0.9, 5e-4, False, 0)
    assert [id(p) for p in group["params"]] == [id(module.weight)]
    assert group["lr"] == 0.002
    plain = build_optimizer(module, TrainConfig(lr=0.3).resolved(1)).param_groups[0]
    assert (plain["lr"], plain["weight_decay"]) == (0.3, 0.0) and [id(p) for p in plain["params"]] == [
        id(module.weight)
    ]
    other = build_optimizer(
        module, TrainConfig(optimizer="sgd", momentum=0.5, weight_decay=0).resolved(1)
    ).param_groups[0]
    assert (other["momentum"], other["weight_decay"]) == (0.5, 0.0)
    adamw = build_optimizer(module, replace(TrainConfig(), weight_decay=0.1).resolved(1))
    assert isinstance(adamw, torch.optim.AdamW)
    assert adamw.param_groups[0]["betas"] == (0.9, 0.999) and adamw.param_groups[0]["weight_decay"] == 0.1


@pytest.mark.parametrize(
    ("steps", "per_epoch", "epochs"), [(60, 1, 60), (60, 7, 9), (60, 200, 1), (1, 3, 1), (5, 2, 2)]
)
def test_steps_become_whole_epochs(steps: int, per_epoch: int, epochs: int) -> None:
    config = TrainConfig(steps=steps).resolved(per_epoch)
    assert (config.epochs, config.steps) == (epochs, None)
    assert config.resolved(per_epoch) == config


def test_steps_and_epochs_are_one_setting() -> None:
    with pytest.raises(TrainingError, match="steps=5 and epochs=2 set the same; leave one of them out"):
        TrainConfig(steps=5, epochs=2)


def test_a_sampler_is_made_where_epochs_are_no_plain_passes() -> None:
    labels = np.array([0] * 30 + [1] * 4)
    assert TrainConfig().sampler(labels, 1) is None
    assert TrainConfig(sampling="balanced", epoch_shots=16).sampler(np.array([0, 1, 1, 0]), 1) is None
    lengths = {
        (sampling, shots): len(sampler)
        for sampling, shots in (("shuffled", 16), ("balanced", None), ("balanced", 16))
        if (sampler := TrainConfig(sampling=sampling, epoch_shots=shots).sampler(labels, 1)) is not None
    }
    assert lengths == {("shuffled", 16): 20, ("balanced", None): 60, ("balanced", 16): 32}


@pytest.mark.parametrize("seed", [1, 7])
def test_a_sampler_draws_with_the_seed_of_the_run(seed: int) -> None:
    labels = np.array([0] * 30 + [1] * 4)
    expected = Sampler((np.arange(30), np.arange(30, 34)), (16, 16), seed)
    found = TrainConfig(sampling="balanced", epoch_shots=16).sampler(labels, seed)
    for epoch in range(2):
        assert found is not None and found.epoch(epoch)[0].tolist() == expected.epoch(epoch)[0].tolist()


@pytest.mark.parametrize("seed", [1, 7])
def test_a_sampler_of_views_draws_whole_batches_of_pairs(seed: int) -> None:
    """34 images in batches of 8 are 4 whole batches of 3 x 34 pairs, in an order that the seed decides."""
    labels = np.array([0] * 30 + [1] * 4)
    found = TrainConfig(sampling="views", views=3, batch_size=8).sampler(labels, seed)
    assert isinstance(found, ViewSampler) and len(found) == 32 and len(found.groups) == 3
    rows, views = found.epoch(0)
    expected = ViewSampler((np.arange(34),) * 3, (11, 11, 10), seed).epoch(0)
    assert rows.tolist() == expected[0].tolist() and views.tolist() == expected[1].tolist()
    assert set(views.tolist()) == {0, 1, 2} and rows.max() > 29
    assert not isinstance(TrainConfig(sampling="balanced", views=3).sampler(labels, seed), ViewSampler)


# --- the loader: compared with one whose every argument is written out ------------------------------------------------

LABELS = np.array([0, 2, 0, 1, 0, 2, 0, 2, 1, 2, 0])  # 5, 2 and 4 images
CROPS = Augmentation(scale=(0.3, 1.0), flip=0.2)


@pytest.fixture(scope="module")
def table() -> ImageTable:
    """Eleven images of noise."""
    pixels = np.random.default_rng(0).integers(0, 256, (11, 20, 24, 3), dtype=np.uint8)
    return ImageTable(tuple(Image.fromarray(image) for image in pixels), LABELS, ("a", "b", "c"))


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return Backbone(made_up_clip(), Tokenizer(), Preprocess(8), "made-up", "0" * 64)


def batches(loader: ImageLoader) -> list[tuple[Any, Any]]:
    """Images and labels of the batches of three epochs."""
    return [(images.tolist(), labels.tolist()) for epoch in range(3) for images, labels in loader.epoch(epoch)]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, {}),
        ({"views": 2}, {"views": 2}),
        ({"augment_on": "device"}, {"augment_on": "cpu"}),
        ({"epoch_shots": 3}, {"sampler": Sampler((np.arange(11),), (8,), 5)}),  # 3 + 2 + 3 of the classes
        (
            {"sampling": "balanced", "epoch_shots": 3},
            {"sampler": Sampler(tuple(np.flatnonzero(c == LABELS) for c in range(3)), (3, 3, 3), 5)},
        ),
    ],
    ids=",".join,
)
def test_training_reads_crops_in_a_new_order(
    settings: dict[str, Any], expected: dict[str, Any], table: ImageTable, backbone: Backbone
) -> None:
    config = TrainConfig(min_crop=0.3, flip=0.2, **settings)
    found = config.loader(table, backbone, 4, seed=5, training=True)
    same = ImageLoader(table, Preprocess(8), 4, seed=5, augment=True, shuffle=True, augmentation=CROPS, **expected)
    assert batches(found) == batches(same)
    assert found.augment_on == (torch.device("cpu") if "augment_on" in expected else None)


def test_validation_reads_images_in_their_order_without_crops(table: ImageTable, backbone: Backbone) -> None:
    config = TrainConfig(min_crop=0.3, sampling="balanced", epoch_shots=3)
    loader = config.loader(table, backbone, 4, seed=5, training=False)
    assert batches(loader) == batches(ImageLoader(table, Preprocess(8), 4))
    assert [label for _, labels in loader.epoch(1) for label in labels.tolist()] == LABELS[:8].tolist()  # whole batches
    assert [label for _, labels in loader.evaluation() for label in labels.tolist()] == LABELS.tolist()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("crops", [True, False])
def test_crops_can_be_had_without_training_and_training_without_crops(
    training: bool, crops: bool, table: ImageTable, backbone: Backbone
) -> None:
    found = TrainConfig(min_crop=0.3, flip=0.2).loader(table, backbone, 4, seed=5, training=training, augment=crops)
    same = ImageLoader(table, Preprocess(8), 4, seed=5, augment=crops, shuffle=training, augmentation=CROPS)
    assert batches(found) == batches(same)


def test_a_loader_decodes_with_the_decoder_that_it_is_given(table: ImageTable, backbone: Backbone) -> None:
    class White(Decoder):
        def __call__(self, source: Any) -> Image.Image:
            return Image.new("RGB", super().__call__(source).size, "white")

    loader = TrainConfig().loader(table, backbone, 4, seed=5, training=True, decoder=White())
    white = Preprocess(8)(Image.new("RGB", (8, 8), "white"))
    assert all(torch.equal(image, white) for images, _ in loader.epoch(0) for image in images)
