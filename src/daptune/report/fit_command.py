"""The command of a fit, from what its adapter records."""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from daptune.adapter.record import AdapterRecord
from daptune.methods import METHODS
from daptune.train import TrainConfig


def recorded_command(record: AdapterRecord, images: str = "IMAGES", out: str = "adapter") -> list[str]:
    """Words of a `daptune fit` with the settings of the record that differ from the defaults.

    Where `fit` itself chose a value, as the backbone by the images, the value is named.
    """
    words = ["daptune", "fit", images, "--method", record.method, "--backbone", record.backbone["name"]]
    words += [] if record.shots is None else ["--shots", str(record.shots)]
    words += ["--seed", str(1 if record.seed is None else record.seed)]
    method = METHODS.get(record.method)
    if method is not None:
        words += _changed("--set", record.method_config, method.config_class)
    words += _changed("--train", {k: v for k, v in record.train_config.items() if k != "seed"}, TrainConfig)
    if record.multi_label:
        words.append("--multi-label")
    elif not record.ensemble:
        words += ["--ensemble", "none"]
    return [*words, "--out", out]


def _changed(option: str, values: Mapping[str, Any], config: type) -> list[str]:
    """Plain values that are not those of the class, each after its option."""
    words = []
    for field in fields(config):
        value = values.get(field.name)
        default = None if field.default is MISSING else field.default
        if isinstance(value, str | int | float) and value != default:
            words += [option, f"{field.name}={value}"]
    return words
