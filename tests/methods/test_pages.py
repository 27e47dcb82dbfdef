"""Pages of the methods: their lines of code are where they say, and their commands and presets are good."""

import re
from pathlib import Path
from typing import Any

import pytest

from daptune import presets
from daptune.methods import METHODS, make_config
from daptune.train.schedule import TrainConfig
from tools.page_lines import NAMED, renumbered

from .conftest import NAMES

ROOT = Path(__file__).parents[2]
PAGES = [
    "zero_shot", "linear_probe", "coop", "vpt", "coop_vpt", "dapt", "kgcoop", "cocoop", "ivlp", "maple", "proda", "vp",
    "upt", "mvlpt", "promptsrc", "clip_lora", "plot", "plot_pp",
]  # fmt: skip
WITHOUT_PRESET = {"zero_shot", "linear_probe"}

each_method = pytest.mark.parametrize("name", METHODS)
each_page = pytest.mark.parametrize("name", PAGES)
each_preset = pytest.mark.parametrize("name", [name for name in PAGES if name not in WITHOUT_PRESET])


def page_of(name: str) -> str:
    return (ROOT / "docs" / "methods" / f"{name}.md").read_text("utf-8")


@each_method
def test_every_method_has_a_page_that_the_table_leads_to(name: str) -> None:
    assert f"(`{name}`)" in page_of(name).splitlines()[0]
    assert f"| [`{name}`]({name}.md) | " in page_of("README")


@each_method
def test_equations_lead_to_their_lines(name: str) -> None:
    page = page_of(name)
    assert NAMED.search(page)
    assert renumbered(page, name) == page, "python tools/page_lines.py mends the numbers"


@each_page
def test_a_page_has_its_method_and_options(name: str) -> None:
    page = page_of(name)
    counts = {
        "zero_shot": 0, "linear_probe": 513, "coop": 8_192, "vpt": 147_456, "coop_vpt": 20_480, "dapt": 20_480,
        "kgcoop": 2_048, "cocoop": 35_360, "ivlp": 30_720, "maple": 3_555_072, "proda": 262_144, "vp": 69_840,
        "upt": 566_400, "mvlpt": 566_400, "promptsrc": 46_080, "clip_lora": 184_320,
        "plot": 32_768, "plot_pp": 14_336,
    }  # fmt: skip
    assert f"Learned: {counts[name]:,} numbers" in page
    defaults = page[page.index("Defaults:") :].split("\n\n")[0]
    config = METHODS[name].config_class()
    for option, value in re.findall(r"`(\w+)=([^`]*)`", defaults):
        if value:
            assert str(getattr(config, option)) == value.strip('"') or float(getattr(config, option)) == float(value)
    assert f"daptune fit pictures/ --method {name}" in page
    for option, value in re.findall(r"--set (\w+)=(\S*)", page):
        make_config(name, {option: value})


@each_preset
@pytest.mark.parametrize("dataset", [None, "dtd", "imagenet"])
def test_the_paper_preset_fits_method_and_training(vit_b_16: Any, name: str, dataset: str | None) -> None:
    preset = presets.resolve("paper", name, shots=16, dataset=dataset)
    METHODS[name](vit_b_16, NAMES, make_config(name, preset.method))
    train = TrainConfig(**preset.train)
    assert train.optimizer == ("adamw" if name == "clip_lora" else "sgd")
    assert train.momentum == 0.9 and train.select == "last"
    with_vision = (20 if dataset == "dtd" else 2, 32, 50 if dataset == "imagenet" else 200)
    expected = {
        "coop": (0.002, 32, 200), **dict.fromkeys(("vpt", "coop_vpt", "dapt"), with_vision),
        "kgcoop": (0.002, 128, 100), "cocoop": (0.002, 1, 10), "ivlp": (0.0035, 4, 5), "maple": (0.0035, 4, 5),
        "proda": (0.001, 32, 200), "vp": (40, 256, 1000), "upt": (0.002, 32, 200), "mvlpt": (0.002, 32, 200),
        "promptsrc": (0.0025, 4, 50), "clip_lora": (0.0002, 32, 348 if dataset == "dtd" else 160),
        "plot": (0.002, 128, 200), "plot_pp": (0.002, 32, 400),
    }  # fmt: skip
    if dataset == "imagenet":
        expected |= {"maple": (0.0026, 4, 2), "proda": (0.001, 32, 50), "clip_lora": (0.0002, 32, 16)}
        expected |= {"coop": (0.002, 32, 50), "plot": (0.002, 128, 50), "plot_pp": (0.002, 32, 100)}
    assert (train.lr, train.batch_size, train.epochs) == expected[name]
    assert train.weight_decay == {"vp": 0, "clip_lora": 0.01}.get(name, 5e-4)
    if name == "kgcoop":
        assert preset.method.get("dataset") == dataset
    if name == "maple":
        assert preset.method.get("prompt_depth") == (3 if dataset == "imagenet" else None)
    if name in ("upt", "mvlpt"):
        assert preset.method["class_position"] == "middle"
        assert preset.method.get("official_attention", False) is (name == "mvlpt")
    if name == "promptsrc":
        expected_average = (45, 5) if dataset == "dtd" else (30, 30)
        assert (preset.method["average_mean"], preset.method["average_std"]) == expected_average
    if name == "clip_lora":
        assert (train.schedule, train.warmup_epochs) == ("cosine", 0)


@pytest.mark.parametrize("dataset", ["eurosat", "dtd", "sun397", "imagenet"])
@pytest.mark.parametrize("shots", [1, 2, 4, 8, 16])
def test_clip_lora_takes_500_steps_a_shot(dataset: str, shots: int) -> None:
    """As many passes as that takes: within half a pass, whatever a pass holds (`ImageLoader` drops a ragged batch)."""
    train = TrainConfig(**presets.resolve("paper", "clip_lora", shots=shots, dataset=dataset).train)
    images = shots * {"eurosat": 10, "dtd": 47, "sun397": 397, "imagenet": 1000}[dataset]
    batches = 1 if images < 32 else images // 32
    assert train.epochs is not None and abs(train.epochs * batches - 500 * shots) <= batches / 2


def test_the_settings_of_dapt_by_data_set_are_those_of_the_preset() -> None:
    rows = re.findall(r"^\| (\w+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", page_of("dapt"), flags=re.MULTILINE)
    assert len(rows) == 11 and {name for name, *_ in rows} <= set(presets.dataset_names())
    for name, lr, intra, inter in rows:
        preset = presets.resolve("paper", "dapt", shots=16, dataset=name)
        weights = preset.method["intra_weight"], preset.method["inter_weight"]
        assert (preset.train["lr"], *weights) == (float(lr), float(intra), float(inter)), name
