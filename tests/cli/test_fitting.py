"""What a fit says of itself before it begins."""

from pathlib import Path
from typing import Any

import pytest

from daptune.cli import fitting
from daptune.cli.fitting import sooner, training_text
from daptune.train import TrainConfig

from .conftest import Command


def test_the_length_of_a_run_is_told_with_its_first_stage() -> None:
    both = TrainConfig(epoch_shots=16, sampling="balanced").resolved(2, text_first=True)
    assert training_text(both) == (
        "adamw, learning rate 0.01, 200 steps of the text prompt, then 16 epochs of at most 16 images a class "
        "(classes drawn evenly), batches of 32, cosine"
    )
    given = TrainConfig(epochs=50, optimizer="sgd", schedule="cosine_per_epoch", batch_size=4).resolved(2)
    assert training_text(given) == "sgd, learning rate 0.002, 50 epochs, batches of 4, cosine per epoch"


def test_fewer_views_are_advised_where_many_are_encoded() -> None:
    def advice(**settings: Any) -> str:
        return sooner(TrainConfig(**settings).resolved(5))

    assert advice(epochs=40) == (
        "--views 4 encodes 4 views of each image once, in place of a new one in each of 40 epochs"
    )
    assert advice(epochs=7) == advice(epochs=40, views=8) == advice(epochs=40, min_crop=1.0, flip=0.0) == ""
    assert "9 epochs" in advice(epochs=9, min_crop=1.0, flip=0.5)


def test_the_advice_is_of_large_backbones_and_methods_on_features(
    daptune: Command, pictures: Path, made_up_backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    common = ("fit", pictures, "--backbone", made_up_backbone, "--epochs", "8", "--json")
    assert "sooner" not in daptune(*common, "--method", "taskres").json["card"]
    monkeypatch.setattr(fitting, "LARGE", 1)
    assert "each of 8 epochs" in daptune(*common, "--method", "taskres").json["card"]["sooner"]
    assert "sooner" not in daptune(*common, "--method", "linear_probe").json["card"]
    assert "sooner" not in daptune(*common, "--method", "vpt").json["card"]
