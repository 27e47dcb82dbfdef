"""Settings by data set and by experiment."""

import pytest

from daptune import FewShotClassifier, presets
from daptune.errors import MethodError

VARIANTS = ("imagenetv2", "imagenet_sketch", "imagenet_a", "imagenet_r")


def settings(method: str, experiment: str, dataset: str | None = None) -> dict[str, object]:
    preset = presets.resolve("paper", method, shots=16, dataset=dataset, experiment=experiment)
    return preset.method | preset.train


@pytest.mark.parametrize(
    ("experiment", "dataset", "expected"),
    [
        ("fewshot", "caltech101", (50, 30, 30, None)),
        ("fewshot", "eurosat", (50, 45, 5, None)),
        ("base2new", "caltech101", (20, 15, 1, None)),
        ("base2new", "eurosat", (20, 15, 1, None)),
        ("cross", "imagenet", (20, 6, 10, 3)),
    ],
)
def test_promptsrc_has_three_configurations(experiment: str, dataset: str, expected: tuple[int, ...]) -> None:
    found = settings("promptsrc", experiment, dataset)
    names = ("epochs", "average_mean", "average_std", "vision_depth")
    assert tuple(found.get(name) for name in names) == expected
    assert found.get("text_depth") == expected[3]
    assert (found["text_weight"], found["image_weight"], found["lr"], found["batch_size"]) == (25, 10, 0.0025, 4)


@pytest.mark.parametrize(
    ("experiment", "dataset", "expected"),
    [
        ("base2new", "imagenet", (5, 0.0035, None)),
        ("base2new", "dtd", (5, 0.0035, None)),
        ("cross", "imagenet", (2, 0.0026, 3)),
        ("cross", None, (2, 0.0026, 3)),
    ],
)
def test_maple_is_shallow_and_short_across_data_sets(experiment: str, dataset: str | None, expected: object) -> None:
    found = settings("maple", experiment, dataset)
    assert (found["epochs"], found["lr"], found.get("prompt_depth")) == expected


def test_coop_starts_from_words_where_classes_are_new() -> None:
    assert "context_init" not in settings("coop", "fewshot", "dtd")
    for experiment, dataset, epochs in (("base2new", "dtd", 200), ("base2new", "imagenet", 50), ("cross", None, 50)):
        found = settings("coop", experiment, dataset)
        assert (found["context_init"], found["text_tokens"], found["epochs"]) == ("a photo of a", 4, epochs)


def test_a_method_without_other_settings_keeps_its_own() -> None:
    for method in presets.method_names():
        if method not in ("coop", "gda", "maple", "mmrl", "promptsrc"):
            for experiment in presets.EXPERIMENTS:
                assert settings(method, experiment, "dtd") == settings(method, "fewshot", "dtd")


def test_variants_of_imagenet_are_tests_of_what_imagenet_trained() -> None:
    for method in presets.method_names():
        for experiment in presets.EXPERIMENTS:
            wanted = settings(method, experiment, "imagenet")
            assert all(settings(method, experiment, variant) == wanted for variant in VARIANTS)
    assert set(VARIANTS) < set(presets.dataset_names())


def test_an_unknown_experiment_is_named() -> None:
    with pytest.raises(MethodError, match=r"unknown experiment .base2old.\. Did you mean .base2new."):
        presets.resolve("paper", "coop", shots=16, experiment="base2old")


def test_a_classifier_passes_its_experiment_on_and_needs_a_preset_for_it() -> None:
    _, config, training = FewShotClassifier(
        "promptsrc", preset="paper", dataset="imagenet", experiment="cross"
    ).settings()
    assert (config.text_depth, config.vision_depth, config.average_mean, training.epochs) == (3, 3, 6, 20)
    with pytest.raises(MethodError, match="dataset and experiment choose among a preset's settings; give preset"):
        FewShotClassifier("promptsrc", experiment="cross").settings()
