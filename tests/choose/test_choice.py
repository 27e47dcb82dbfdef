"""The order of preference is by cost, and what a fit makes of the choice."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from daptune.choose.choice import CANDIDATES, CHOICE
from daptune.choose.trials import Trials
from daptune.classifier import FewShotClassifier, load
from daptune.clip.backbone import Backbone, load_backbone
from daptune.data.table import ImageTable
from daptune.errors import DataError, MethodError, TrainingError
from daptune.methods import METHODS

QUICK = {"epochs": 2, "batch_size": 8}
CLOSED = ("zero_shot", "prototype", "tip_adapter", "lp_pp", "linear_probe")


@pytest.fixture(scope="module")
def backbone(made_up_backbone: str) -> Backbone:
    return load_backbone(made_up_backbone, precision="fp32")


def test_the_order_is_from_cheap_to_costly(backbone: Backbone) -> None:
    """Passes of towers in a step, then an ensemble before none, then the number of values that are set."""
    clip, passes = backbone.clip, Counter[str]()
    handles = [
        module.register_forward_hook(lambda *_, tower=tower: passes.update([tower]))
        for tower, module in (("image", clip.visual.conv1), ("text", clip.text.ln_final))
    ]
    costs = []
    for name in CANDIDATES:
        method = METHODS[name](backbone, [f"class {number}" for number in range(10)])
        if name == "dapt":
            method.prototypes = torch.zeros(10, clip.config.embed_dim)
        size = clip.config.image_size
        batch = torch.ones(2, clip.config.embed_dim) if method.trains_on_features else torch.ones(2, 3, size, size)
        for _ in range(2 * method.trainable):  # the second step: the first also pays for what is done once
            passes.clear()
            method.train().losses(batch, torch.tensor([0, 1]))
        steps = (passes["image"], passes["text"]) if method.trainable else (0, 0)
        costs.append((*steps, not method.joins_ensemble, method.parameter_count))
    for handle in handles:
        handle.remove()
    assert costs == sorted(costs)
    assert costs[0][:3] == (0, 0, False) and costs[-1][:3] == (1, 1, False)


def quick(backbone: Backbone, **more: Any) -> FewShotClassifier:
    return FewShotClassifier("auto", backbone, train_options=QUICK, **more)


def test_auto_is_an_ordinary_fit_of_the_chosen(backbone: Backbone, pictures: Path, tmp_path: Path) -> None:
    fitted = quick(backbone, shots=4, minutes=0.5).fit(pictures, holdout=0.2)
    assert fitted.choice_ is not None
    name = fitted.choice_["method"]
    assert fitted.method == "auto" and fitted.method_.name == fitted.record_.method == name in CANDIDATES
    assert {row["method"] for row in fitted.choice_["rows"]} == set(CANDIDATES)
    alone = FewShotClassifier(name, backbone, shots=4, train_options=QUICK).fit(pictures, holdout=0.2)
    for key, tensor in alone.method_.state_dict().items():
        torch.testing.assert_close(fitted.method_.state_dict()[key], tensor, rtol=0, atol=0)
    loaded = load(fitted.save(tmp_path / "adapter"), backbone)
    assert loaded.method == name and loaded.record_.data["chosen"] == json.loads(json.dumps(fitted.choice_))
    assert FewShotClassifier(name, backbone, shots=4, train_options=QUICK).fit(pictures).choice_ is None


def test_neither_test_images_nor_those_held_out_decide(backbone: Backbone, pictures: Path) -> None:
    seen: list[ImageTable] = []

    class Watched(FewShotClassifier):
        def trials(self, recipes: Any, drawn: Any, backbone: Any, **limits: Any) -> Trials:
            seen.extend([drawn.train, drawn.test])
            made = super().trials(recipes, drawn, backbone, **limits)
            assert made.table is drawn.train and made.val is None
            return made

    Watched("auto", backbone, train_options=QUICK, shots=None, minutes=0.05).fit(pictures, holdout=0.2)
    train, held = ({str(path) for path in table.images} for table in seen)
    assert len(train) == 24 and len(held) == 6 and not train & held


def test_one_image_a_class_takes_the_prior(backbone: Backbone, pictures: Path) -> None:
    fitted = quick(backbone, shots=1).fit(pictures)
    assert fitted.method_.name == CANDIDATES[0] and fitted.choice_ is not None
    assert "one image a class: none can be held out" in fitted.choice_["why"]


def test_a_resumed_run_keeps_its_choice(backbone: Backbone, pictures: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    first = quick(backbone, shots=2, minutes=0.2).fit(pictures, run_dir=run)
    choice = json.loads((run / CHOICE).read_text())
    assert choice == json.loads(json.dumps(first.choice_))
    other = next(name for name in CANDIDATES if name != choice["method"] and name in CLOSED)
    (run / CHOICE).write_text(json.dumps(choice | {"method": other}))
    for left in run.glob("*.safetensors"):
        left.unlink()
    assert quick(backbone, shots=2).fit(pictures, run_dir=run, resume=True).method_.name == other
    (run / CHOICE).write_text('{"method": "none of these"}')
    with pytest.raises(TrainingError, match=r"choice\.json is damaged"):
        quick(backbone, shots=2).fit(pictures, run_dir=run, resume=True)


def test_bad_input(backbone: Backbone, pictures: Path) -> None:
    with pytest.raises(MethodError, match=r"method_options \(--set\) belongs to one method"):
        FewShotClassifier("auto", backbone, method_options={"text_tokens": 2}).fit(pictures)
    with pytest.raises(MethodError, match="preset belongs to one method"):
        FewShotClassifier("auto", backbone, preset="paper").fit(pictures)
    with pytest.raises(DataError, match="--minutes must be above 0; found 0"):
        quick(backbone, minutes=0).fit(pictures)
    with pytest.raises(MethodError, match="auto chooses among taskres"):
        quick(backbone).settings()
