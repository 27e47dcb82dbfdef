"""Named settings: `--preset paper` has the settings of the official code for each data set, `fast` a short run.

`paper.json` holds the settings of the authors' repositories (named in the file), for fp16 weights without loss
scaling. Learning rates span four orders of magnitude between data sets, so that presets are never the default. `fast`
starts from a phrase and, with up to 4 images per class, uses a fifth of the paper's epochs (docs/time_to_accuracy.md).
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from daptune.errors import MethodError, suggest
from daptune.files import read_json
from daptune.names import plain_key

PRESETS = ("paper", "fast")
EXPERIMENTS = ("fewshot", "base2new", "cross")
"""What is measured: all classes; classes left out of training; other data sets, after training on ImageNet."""
PROTOCOL_SHOTS = {"paper": 16}
"""Training images per class of a preset that follows a protocol, unless another number is given."""
_ALL_AS_SHOTS = 16  # shots that determine the number of steps for all images


@dataclass(frozen=True)
class Preset:
    """Settings of a preset; the user's options override them."""

    method: dict[str, Any]
    """Fields of the method's config dataclass."""
    train: dict[str, Any]
    """Fields of `TrainConfig`."""


@cache
def _table(name: str) -> dict[str, Any]:
    table: dict[str, Any] = read_json(Path(__file__).with_name(f"{name}.json"))
    return table


def dataset_names(preset: str = "paper") -> list[str]:
    """The data sets with their own settings."""
    return sorted(_table(preset)["datasets"])


def method_names(preset: str = "paper") -> list[str]:
    return sorted(_table(preset)["methods"])


def resolve(
    preset: str, method: str, *, shots: int | None, dataset: str | None = None, experiment: str = EXPERIMENTS[0]
) -> Preset:
    """The settings of `preset` for a method and a number of shots (None: all images).

    `dataset` is the name of a benchmark data set. Without it the generic values apply: loss weights 0.1 (the official
    defaults), the median learning rate, and 100 classes to compute epochs from. Variants of ImageNet have its settings:
    they are test sets of what was trained on it. `experiment` is one of EXPERIMENTS; a method whose code has no other
    settings for it keeps those of "fewshot". Raises MethodError for an unknown preset, data set or experiment, or a
    method without settings.
    """
    for kind, found, choices in (("preset", preset, PRESETS), ("experiment", experiment, EXPERIMENTS)):
        if found not in choices:
            raise MethodError(f"unknown {kind} {found!r}.{suggest(found, choices)}")
    table = _table(preset)
    method = _known(method, table["methods"]) or method
    if method not in table["methods"]:
        known = ", ".join(method_names(preset))
        raise MethodError(f"preset {preset!r} has settings for {known}, not for {method!r}; leave out --preset")
    if dataset is not None and not table["datasets"]:
        raise MethodError(f"preset {preset!r} is the same for all data, found dataset {dataset!r}; leave it out")
    key = None if dataset is None else _known(dataset, table["datasets"])
    if dataset is not None and key is None:
        raise MethodError(f"preset {preset!r} has no data set {dataset!r}.{suggest(dataset, table['datasets'])}")
    row = table["generic"] if key is None else table["datasets"][key]
    if "like" in row:
        key = row["like"]
        row = table["datasets"][key]
    recipe = table["methods"][method]
    recipe = table["methods"].get(recipe.get("like"), {}) | recipe
    if special := recipe.get("experiments", {}).get(experiment):
        merged = {part: recipe.get(part, {}) | special.get(part, {}) for part in ("options", "train")}
        recipe = recipe | {"datasets": special.get("datasets", {})} | merged
    own = recipe.get("datasets", {}).get(key, {})  # overrides the recipe, which overrides the shared settings

    template = {"dataset": key} if recipe.get("template") == "dataset" and key is not None else {}
    options = recipe.get("options", {}) | template | own.get("options", {})
    if recipe.get("weights") == "dataset":
        options |= {"inter_weight": float(row["inter_weight"]), "intra_weight": float(row["intra_weight"])}
    train = dict(table["train"])
    if "lr" in recipe:
        train["lr"] = float(row["lr"] if recipe["lr"] == "dataset" else recipe["lr"])
    by_shots = recipe.get("epochs_by_shots")  # of the method: also for ImageNet
    shared = table["epochs_by_dataset"].get(key) or _epochs(table["epochs_by_shots"], shots)
    train["epochs"] = _epochs(by_shots, shots) if by_shots else shared
    train |= recipe.get("train", {}) | own.get("train", {})
    if "steps_per_shot" in recipe:  # convert to epochs of full batches
        images = shots or _ALL_AS_SHOTS
        batches = max(1, images * row["classes"] // train["batch_size"])
        train["epochs"] = round(recipe["steps_per_shot"] * images / batches)
    return Preset(method=options, train=train)


def _known(name: str, table: dict[str, Any]) -> str | None:
    """The key of a name in any usual spelling."""
    return next((key for key in table if plain_key(key) == plain_key(name)), None)


def _epochs(by_shots: dict[str, int | None], shots: int | None) -> int | None:
    """Epochs for 1 shot, up to 4, or more (and all images); None: the default without a preset."""
    if shots is not None:
        for limit in ("1", "4"):
            if shots <= int(limit):
                return by_shots[limit]
    return by_shots["more"]
