"""The published settings of the methods on frozen features."""

from typing import Any

import numpy as np
import pytest

from daptune import presets
from daptune.methods import METHODS, make_config
from daptune.train.schedule import TrainConfig

from .conftest import NAMES

FEW_SHOT = [
    "caltech101", "dtd", "eurosat", "fgvc_aircraft", "food101", "imagenet", "oxford_flowers", "oxford_pets",
    "stanford_cars", "sun397", "ucf101",
]  # fmt: skip
NEW = ("gda", "zs_lp", "clap", "prolip", "tcp", "mmrl")
EIGHT = {(method, "imagenet") for method in ("taskres", "zs_lp", "clap")}  # templates written out
EIGHT |= {("tcp", "fgvc_aircraft"), ("tcp", "food101")}


def chosen(method: str, dataset: str | None, shots: int = 16, experiment: str = "fewshot") -> tuple[Any, TrainConfig]:
    preset = presets.resolve("paper", method, shots=shots, dataset=dataset, experiment=experiment)
    return make_config(method, preset.method), TrainConfig(**preset.train)


@pytest.mark.parametrize("method", ["tip_adapter", "tip_adapter_f", "clip_adapter", "taskres", "lp_pp", *NEW])
def test_every_data_set_gives_options_that_the_method_takes(method: str, backbone: Any) -> None:
    for dataset in (None, *presets.dataset_names()):
        options, train = chosen(method, dataset)
        assert train.resolved(1).epochs and METHODS[method](backbone, NAMES, options).logits
        if dataset in FEW_SHOT:
            assert options.dataset == dataset or (method, dataset) in EIGHT


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


@pytest.mark.parametrize("method", ["clap", "zs_lp"])
def test_clap_is_the_same_for_every_data_set_and_number_of_shots(method: str) -> None:
    for dataset in (None, *FEW_SHOT):
        for shots in (1, 4, 16):
            options, train = chosen(method, dataset, shots)
            assert options.official_base and len(options.chosen_templates()) == (8 if dataset == "imagenet" else 1)
            assert (train.optimizer, train.lr, train.momentum, train.weight_decay) == ("sgd", 0.1, 0.9, 0)
            assert (train.batch_size, train.epochs, train.views, train.sampling) == (256, 300, 20, "views")
            assert (train.schedule, train.warmup_epochs, train.warmup_lr) == ("cosine_per_epoch", 1, 1e-5)
            assert (train.min_crop, train.flip) == (0.08, 0.5)


@pytest.mark.parametrize(("shots", "images", "draws"), [(1, 10, 200), (2, 20, 256), (16, 1600, 1536)])
def test_an_epoch_of_clap_is_as_many_batches_as_its_unaugmented_images_fill(
    shots: int, images: int, draws: int
) -> None:
    """256 of the 20 n rows, or all if there are fewer; 1600 images fill six batches of 256."""
    _, train = chosen("clap", None, shots)
    sampler = train.sampler(np.zeros(images, np.int64), 1)
    assert sampler is not None and len(sampler) == draws


def test_gda_and_prolip() -> None:
    for dataset in FEW_SHOT:
        for experiment in ("fewshot", "base2new", "cross"):
            options, train = chosen("gda", dataset, experiment=experiment)
            assert options.views == 10 and options.official_count and train.min_crop == 0.5 and train.flip == 0.5
            assert options.new_classes == options.official_covariance == (experiment == "base2new")
            assert len(options.chosen_templates()) == (7 if dataset == "imagenet" else 1)
        options, train = chosen("prolip", dataset)
        assert options.per_shot and options.constraint_weight == 1
        assert (train.optimizer, train.lr, train.eps, train.weight_decay) == ("adam", 1e-3, 1e-6, 0)
        assert (train.epochs, train.views, train.schedule, train.warmup_epochs) == (300, 300, "cosine", 0)
        assert train.min_crop == 0.5 and train.batch_size * train.accumulate >= 16 * 397
        assert len(options.chosen_templates()) == (7 if dataset == "imagenet" else 1)


def test_tcp_has_a_phrase_for_the_learned_context_and_a_template_for_the_frozen_one() -> None:
    phrases = {
        "oxford_pets": "{}, a type of pet.", "oxford_flowers": "{}, a type of flower.",
        "fgvc_aircraft": "{}, a type of aircraft.", "dtd": "{} texture.", "stanford_cars": "{}, a type of car",
        "food101": "{}, a type of food.", "ucf101": "person doing {}.",
    }  # fmt: skip
    frozen = {"fgvc_aircraft": "a photo of an aircraft {}.", "food101": "a photo of a {}, a type of food."}
    for dataset in FEW_SHOT:
        options, train = chosen("tcp", dataset)
        assert options.phrase == phrases.get(dataset, "{}.") and options.knowledge_weight == 8
        assert dataset not in frozen or options.chosen_templates() == (frozen[dataset],)
        assert (train.optimizer, train.lr, train.weight_decay, train.eps) == ("adam", 2e-3, 5e-4, 1e-3)
        assert (train.batch_size, train.epochs, train.warmup_epochs, train.warmup_lr) == (32, 50, 1, 1e-5)
        assert (train.min_crop, train.schedule) == (0.08, "cosine_per_epoch")


def test_mmrl_has_weights_by_data_set_and_settings_by_experiment() -> None:
    weights = (0.5, 6, 0.01, 6, 5, 0.5, 4, 0.2, 7, 6, 3)
    for dataset, weight in zip(FEW_SHOT, weights, strict=True):
        large = dataset == "imagenet"
        for experiment, batch, epochs in (("fewshot", 32, 50), ("base2new", 4, 10), ("cross", 32, 1)):
            options, train = chosen("mmrl", dataset, experiment=experiment)
            assert options.consistency_weight == (0.2 if experiment == "cross" else weight)
            assert options.width == (2048 if dataset == "eurosat" and experiment != "cross" else 512)
            if large and experiment != "cross":
                batch, epochs = 32, 5
            assert (train.batch_size, train.epochs, train.warmup_epochs) == (batch, epochs, int(experiment != "cross"))
            assert (train.optimizer, train.lr, train.weight_decay, train.min_crop) == ("adamw", 1e-3, 5e-4, 0.5)
            assert (options.class_share, options.tokens, options.random_projection) == (0.7, 5, True)
