"""A plan: TOML -> frozen dataclasses -> jobs. Mistakes are reported before anything runs.

    name = "mine"
    backbone = "tiny"
    methods = ["zero_shot", "dapt", { method = "dapt", label = "+inter", options = { intra_weight = 0.0 } }]
    datasets = ["demo", "./pictures"]
    shots = [1, 4, 16]

A plan may have several `[[experiments]]`; keys above them are defaults for each. `multi_label = true` reads tables of
images with any number of labels, and measures mAP.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import Any, TypeVar

from daptune.bench.datasets import check_name, is_path
from daptune.clip.precision import PRECISIONS
from daptune.errors import DaptuneError, PlanError, foreign, suggest
from daptune.foreign import TOML_BYTES, parse_toml, read_bytes
from daptune.methods import get_method, make_config
from daptune.presets import PRESETS
from daptune.train import TrainConfig

KINDS = ("fewshot", "comparison", "domain", "ablation", "base2new", "crossdataset")
OTHER_CLASSES = ("domain", "base2new", "crossdataset")
"""Kinds that measure other images or classes than those of the data set that is learned."""
SCORES = ("test", "val")
AMONG = ("target", "all")
MOST_JOBS = 100_000
T = TypeVar("T")


@dataclass(frozen=True)
class Job:
    """One row of results: a method with its options on a few-shot sample of a data set.

    options  fields of the method's config          train    fields of TrainConfig, or `steps` instead of `epochs`
    targets  data sets to measure on besides the test images
    score    "val" measures validation images only, so that nothing can be selected on test images
    ensemble "auto" adds hand-written prompts and training images to the answers (`daptune.methods.ensemble`)
    among    predictions on a target whose classes are all learned ones: "target", only its classes, or "all", any
             learned class
    multi_label  images have any number of labels, and mAP is measured
    """

    plan: str
    experiment: str
    method: str
    label: str
    dataset: str
    shots: int
    seed: int
    backbone: str
    precision: str
    preset: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)
    targets: tuple[str, ...] = ()
    score: str = "test"
    among: str = "target"
    ensemble: str = "none"
    multi_label: bool = False

    @property
    def key(self) -> str:
        return _digest(self._content())

    @property
    def training(self) -> str:
        """Hash that is equal for jobs that share a training and differ only in name or measurements."""
        own = ("plan", "experiment", "label", "targets", "ensemble")
        content = {name: value for name, value in self._content().items() if name not in own}
        if self.preset is not None and self.settings == "cross":
            content["settings"] = self.settings
        return _digest(content | {"half": self.experiment == "base2new"})

    @property
    def settings(self) -> str:
        """Which of a preset's settings are meant (`daptune.presets.EXPERIMENTS`)."""
        return {"base2new": "base2new", "domain": "cross", "crossdataset": "cross"}.get(self.experiment, "fewshot")

    def _content(self) -> dict[str, Any]:
        # older results lack these fields: keep their keys
        first = {"score": SCORES[0], "among": AMONG[0], "ensemble": "none", "multi_label": False}
        return {name: value for name, value in asdict(self).items() if name not in first or value != first[name]}


@dataclass(frozen=True)
class MethodRow:
    method: str
    label: str
    options: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)
    ensemble: str = "none"


@dataclass(frozen=True)
class Experiment:
    kind: str
    methods: tuple[MethodRow, ...]
    datasets: tuple[str, ...]
    shots: tuple[int, ...]
    seeds: tuple[int, ...]
    targets: tuple[str, ...] = ()
    score: str = "test"
    among: str = "target"
    multi_label: bool = False


@dataclass(frozen=True)
class Plan:
    """All experiments. `text` is the TOML source."""

    name: str
    backbone: str
    precision: str
    preset: str | None
    experiments: tuple[Experiment, ...]
    text: str = field(default="", repr=False, compare=False)

    def jobs(self) -> list[Job]:
        """All jobs without duplicates, the fewest shots of an experiment first."""
        size = sum(
            len(part.shots) * len(part.datasets) * len(part.methods) * len(part.seeds) for part in self.experiments
        )
        if size > MOST_JOBS:
            raise PlanError(f"plan {self.name} has {size:,} jobs, the limit is {MOST_JOBS:,}; divide it")
        jobs = [
            Job(
                self.name, part.kind, row.method, row.label, dataset, shots, seed, self.backbone, self.precision,
                self.preset, row.options, row.train, tuple(name for name in part.targets if name != dataset),
                part.score, part.among, row.ensemble, part.multi_label,
            )
            for part in self.experiments
            for shots, dataset, row, seed in product(sorted(part.shots), part.datasets, part.methods, part.seeds)
        ]  # fmt: skip
        return list({job.key: job for job in jobs}.values())


_EXPERIMENT = {item.name for item in fields(Experiment)} | {"train"}
_PLAN = {"name", "backbone", "precision", "preset", "experiments"} | _EXPERIMENT
_ROW = {item.name for item in fields(MethodRow)}


def ready_plans() -> dict[str, str]:
    folder = files("daptune.bench").joinpath("plans")
    found = sorted((path for path in folder.iterdir() if path.name.endswith(".toml")), key=lambda path: path.name)
    return {path.name.removesuffix(".toml"): path.read_text("utf-8") for path in found}


def find_plan(name: str) -> Plan:
    """A plan of the package by name, or the plan in a file. Raises PlanError."""
    ready = ready_plans()
    if name in ready:
        return parse_plan(ready[name], name)
    path = Path(name).expanduser()
    if path.suffix != ".toml" and not path.is_file():
        raise PlanError(f"there is no plan {name!r}.{suggest(name, ready)} For a plan of your own, give a .toml file.")
    with foreign(lambda why: PlanError(f"{name} cannot be read ({why}).")):
        text = read_bytes(path, TOML_BYTES).decode("utf-8")
    return parse_plan(text, path.stem)


def parse_plan(text: str, name: str) -> Plan:
    """The plan in a TOML text; `name` is its default name. Raises PlanError."""
    with foreign(lambda why: PlanError(f"plan {name} is not TOML: {why}")):
        content = parse_toml(text.encode())
    with foreign(lambda why: PlanError(f"plan {name} cannot be understood ({why})")):
        try:
            return _plan(content, text, name)
        except PlanError:
            raise
        except DaptuneError as error:
            raise PlanError(f"plan {name}: {error}") from error


def _plan(content: dict[str, Any], text: str, name: str) -> Plan:
    where = f"plan {name}"
    _known(content, _PLAN, where)
    shared = {key: value for key, value in content.items() if key in _EXPERIMENT}
    parts = content.get("experiments", [{}])
    if not isinstance(parts, list) or not parts or not all(isinstance(part, dict) for part in parts):
        raise PlanError(f"{where}: expected experiments as tables, written [[experiments]]; found {parts!r}")
    found = []
    for number, part in enumerate(parts, 1):
        place = f"{where}, experiment {number}"
        _known(part, _EXPERIMENT, place)
        found.append(_experiment(shared | part, place))
    preset = content.get("preset")
    return Plan(
        name=_of(str, content.get("name", name), f"{where}: name"),
        backbone=_of(str, content.get("backbone", "tiny"), f"{where}: backbone"),
        precision=_one_of(content.get("precision", "auto"), PRECISIONS, f"{where}: precision"),
        preset=None if preset is None else _one_of(preset, PRESETS, f"{where}: preset"),
        experiments=tuple(found),
        text=text,
    )


def _experiment(content: Mapping[str, Any], where: str) -> Experiment:
    for key in ("methods", "datasets"):
        if key not in content:
            raise PlanError(f"{where} names no {key}; add a line such as {key} = [...]")
    train = _table(content.get("train", {}), f"{where}: train")
    methods = tuple(_row(item, train, where) for item in _of(list, content["methods"], f"{where}: methods"))
    labels = [row.label for row in methods]
    if twice := next((label for label in labels if labels.count(label) > 1), None):
        raise PlanError(f"{where}: two methods have the label {twice!r}; give one of them another label")
    found: dict[str, Any] = {"methods": methods}
    for key in ("datasets", "targets"):
        names = _of(list, content.get(key, []), where, empty=key == "targets")
        found[key] = tuple(check_name(_of(str, name, where)) for name in names)
    for key, known in (("kind", KINDS), ("score", SCORES), ("among", AMONG)):
        found[key] = _one_of(content.get(key, known[0]), known, f"{where}: {key}")
    if found["score"] == "val" and (found["targets"] or found["kind"] == "base2new"):
        raise PlanError(f'{where}: score = "val" measures validation images only; leave out targets and base2new')
    found["multi_label"] = content.get("multi_label", False)
    _check_several(found, where)
    for key, low, usual in (("shots", 1, 16), ("seeds", 0, 1)):
        numbers = _of(list, content.get(key, [usual]), f"{where}: {key}")
        found[key] = tuple(_whole(number, low, f"{where}: {key}") for number in numbers)
    return Experiment(**found)


def _check_several(found: Mapping[str, Any], where: str) -> None:
    """Raise PlanError for a `multi_label` that is no truth value, and for what cannot come with several labels."""
    if not isinstance(several := found["multi_label"], bool):
        raise PlanError(f"{where}: multi_label: expected true or false, found {several!r}")
    if not several:
        return
    if found["targets"] or found["kind"] in OTHER_CLASSES:
        raise PlanError(
            f"{where}: multi_label measures the classes that were learned; leave out targets and their kind"
        )
    if named := [name for name in found["datasets"] if not is_path(name)]:
        raise PlanError(
            f"{where}: multi_label needs tables of your own, such as ./labels.csv; {named[0]} has one label"
        )
    for row in found["methods"]:
        if not get_method(row.method).multi_label:
            raise PlanError(f"{where}: {row.method} cannot learn several labels; leave it out, or multi_label")
        if row.ensemble != "none":
            raise PlanError(f"{where}: there is no ensemble with multi_label; leave it out of {row.label}")


def _row(item: object, train: dict[str, Any], where: str) -> MethodRow:
    content = {"method": item} if isinstance(item, str) else _table(item, f"{where}: methods")
    _known(content, _ROW, f"{where}: methods")
    method = get_method(_of(str, content.get("method"), f"{where}: method")).name
    options = _table(content.get("options", {}), f"{where}: options of {method}")
    make_config(method, options)
    training = train | _table(content.get("train", {}), f"{where}: train of {method}")
    settings = {name: value for name, value in training.items() if name != "steps"}
    _known(settings, {item.name for item in fields(TrainConfig)} | {"steps"}, f"{where}: train")
    if "select" in settings or "seed" in settings:
        raise PlanError(f"{where}: train takes no select or seed; both selections are measured; use seeds = [...]")
    if "steps" in training:
        _whole(training["steps"], 1, f"{where}: steps")
        if "epochs" in training:
            raise PlanError(f"{where}: train of {method} has both steps and epochs; keep one of the two")
    TrainConfig(**settings)
    ensemble = _one_of(content.get("ensemble", "none"), ("none", "auto"), f"{where}: ensemble")
    return MethodRow(method, _of(str, content.get("label", method), f"{where}: label"), options, training, ensemble)


def _known(content: Mapping[str, Any], known: set[str], where: str) -> None:
    for key in content:
        if key not in known:
            raise PlanError(f"{where} has an unknown key {key!r}.{suggest(key, known)}")


def _one_of(value: Any, known: Sequence[str], where: str) -> str:
    if value not in known:
        raise PlanError(f"{where} {value!r} is not known.{suggest(str(value), known)}")
    return str(value)


_EXPECTED: dict[type, str] = {
    str: "a name in quotes",
    dict: "a table such as { lr = 0.01 }",
    list: "a list such as [1, 2]",
}


def _of(kind: type[T], value: object, where: str, *, empty: bool = False) -> T:
    """The value. Raises PlanError for another type, and for an empty text or list unless `empty`."""
    if not isinstance(value, kind) or not (empty or (value.strip() if isinstance(value, str) else value)):
        raise PlanError(f"{where}: expected {_EXPECTED[kind]}, found {value!r}")
    return value


def _table(value: object, where: str) -> dict[str, Any]:
    return _of(dict, value, where, empty=True)


def _whole(value: object, low: int, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < low:
        raise PlanError(f"{where}: expected whole numbers of at least {low}, found {value!r}")
    return value


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
