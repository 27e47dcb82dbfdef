"""The published settings of the methods on frozen features."""

from typing import Any

import pytest

from daptune import presets
from daptune.methods import METHODS, make_config
from daptune.train.schedule import TrainConfig

from .conftest import NAMES

FEW_SHOT = [
    "caltech101", "dtd", "eurosat", "fgvc_aircraft", "food101", "imagenet", "oxford_flowers", "oxford_pets",
    "stanford_cars", "sun397", "ucf101",
]  # fmt: skip


def chosen(method: str, dataset: str | None, shots: int = 16) -> tuple[Any, TrainConfig]:
    preset = presets.resolve("paper", method, shots=shots, dataset=dataset)
    return make_config(method, preset.method), TrainConfig(**preset.train)


@pytest.mark.parametrize("method", ["tip_adapter", "tip_adapter_f", "clip_adapter", "taskres", "lp_pp"])
def test_every_data_set_gives_options_that_the_method_takes(method: str, backbone: Any) -> None:
    for dataset in (None, *presets.dataset_names()):
        options, train = chosen(method, dataset)
        assert train.resolved(1).epochs and METHODS[method](backbone, NAMES, options).logits
        if dataset in FEW_SHOT:
            assert options.dataset == dataset or (method, dataset) == ("taskres", "imagenet")


@pytest.mark.parametrize("method", ["tip_adapter", "tip_adapter_f"])
def test_tip_adapters_are_those_of_its_configurations(method: str) -> None:
    rows = {d: (o.alpha, *o.search_to) for d in FEW_SHOT for o, _ in [chosen(method, d)]}
    assert list(rows.values()) == [
        (3, 12, 5), (2, 13, 13), (2, 12, 10), (5, 30, 30), (1.17, 10, 10), (1.17, 7, 3), (10, 50, 50), (1.17, 7, 3),
        (3, 20, 10), (1.17, 12, 10), (3, 7, 3),
    ]  # fmt: skip
    for dataset in FEW_SHOT:
        options, train = chosen(method, dataset)
        assert (options.beta, options.views, options.search_steps) == (1, 10, (200, 20))
        assert options.ensemble == (dataset == "imagenet")
        assert (train.optimizer, train.lr, train.weight_decay, train.batch_size) == ("adamw", 1e-3, 0.01, 256)
        assert train.eps == 1e-4
        assert (train.schedule, train.warmup_epochs, train.epochs) == ("cosine", 0, 100 if dataset == "eurosat" else 20)


def test_taskres_has_the_base_it_was_tuned_with() -> None:
    for dataset in FEW_SHOT:
        for shots, epochs in ((1, 100), (4, 100), (8, 200), (16, 200)):
            options, train = chosen("taskres", dataset, shots)
            assert options.official_base and options.alpha == (1 if dataset == "oxford_flowers" else 0.5)
            assert train.epochs == epochs and train.batch_size == 256 and train.schedule == "cosine_per_epoch"
            assert train.lr == (2e-4 if dataset == "imagenet" else 2e-3)
            assert (train.optimizer, train.weight_decay, train.eps) == ("adam", 5e-4, 1e-8)
    assert len(chosen("taskres", "imagenet")[0].templates) == 8


def test_the_others() -> None:
    options, train = chosen("clip_adapter", "dtd", 2)
    assert (options.ratio, train.lr, train.epochs, train.optimizer) == (0.2, 0.002, 100, "sgd")
    options, _ = chosen("lp_pp", "imagenet")
    assert options.official_alpha and options.steps == 300 and options.ensemble
