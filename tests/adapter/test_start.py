"""Training that starts from an earlier adapter: what is taken over, what is refused, and that it is kept account of."""

import logging
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

import daptune
from daptune.adapter.record import read_record
from daptune.adapter.store import make_record, save_adapter, start_from
from daptune.classifier import FewShotClassifier
from daptune.data import join_tables, read_source
from daptune.errors import AdapterError, Interrupted, TrainingError
from daptune.methods import METHODS, make_config

from ..conftest import CLASSES

OPTIONS = {"text_tokens": 4, "vision_tokens": 4}  # of the fixture `fitted`
QUICK: dict[str, Any] = {"epochs": 2, "batch_size": 6, "lr": 0.01}


def again(backbone: Any, start: Path, **changes: Any) -> FewShotClassifier:
    settings: dict[str, Any] = {"shots": 2, "method_options": OPTIONS, "train_options": QUICK, "start_from": start}
    return FewShotClassifier("coop_vpt", backbone, **(settings | changes))


def renamed(pictures: Path) -> Path:
    """The same pictures under other names: a target task."""
    for name in CLASSES:
        (pictures / name).rename(pictures / f"new {name}")
    return pictures


def test_a_fit_on_other_classes_starts_from_the_adapter(made_up_backbone: str, pictures: Path, adapter: Path) -> None:
    whole = safetensors.torch.load_file(adapter / "adapter.safetensors")
    source = {name: value for name, value in whole.items() if not name.startswith("ensemble.")}
    # of the start's classes: left behind
    assert set(whole) - set(source) == {"ensemble.weights", "ensemble.bias", "ensemble.prototypes"}
    first: dict[str, torch.Tensor] = {}

    def before(ready: FewShotClassifier) -> None:
        first.update({name: value.clone() for name, value in ready.method_.state_dict().items()})

    classifier = again(made_up_backbone, adapter).fit(renamed(pictures), before=before)
    assert first.keys() == source.keys() and all(torch.equal(first[name], value) for name, value in source.items())
    learned = classifier.method_.state_dict()
    assert all(not torch.equal(learned[name], value) for name, value in source.items())
    assert all(name.startswith("new ") for name in classifier.classes_)
    assert classifier.record_.data["started_from"] == read_record(adapter).tensors_sha256
    own = classifier.method_.ensemble
    assert own is not None and own.weights.shape == whole["ensemble.weights"].shape
    assert not torch.equal(own.weights, whole["ensemble.weights"].float())
    plain = again(made_up_backbone, adapter, start_from=None).fit(pictures)
    assert not torch.equal(plain.method_.text_prompt, classifier.method_.text_prompt)
    assert "started_from" not in plain.record_.data


@pytest.mark.parametrize("name", METHODS)
def test_every_method_starts_or_says_why_not(name: str, fitted: FewShotClassifier, tmp_path: Path) -> None:
    backbone = fitted.backbone_
    source, target = METHODS[name](backbone, CLASSES, seed=2), METHODS[name](backbone, ["dog", "horse"], seed=1)
    folder = save_adapter(tmp_path / "a", source, make_record(source, backbone))
    state, takes = source.state_dict(), source.takes_new_classes(source.config)
    if takes and state:
        start_from(target, folder)
        if name == "two_sfs":  # a row for each class, of these two none
            state["residual"] = torch.zeros(2, backbone.clip.config.embed_dim)
        assert all(torch.equal(value, target.state_dict()[key]) for key, value in state.items())
        assert all(parameter.requires_grad for parameter in target.parameters())
        return
    why = "nothing learned" if takes else "are specific to its classes"
    with pytest.raises(AdapterError, match=why):
        start_from(target, folder)
    assert target.started_from is None


def save(tmp_path: Path, backbone: Any, method: str, **options: object) -> Path:
    source = METHODS[method](backbone, CLASSES, make_config(method, options), seed=2)
    return save_adapter(tmp_path / "start", source, make_record(source, backbone))


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("coop", {}, "was made with the method 'coop' and cannot start a fit of 'coop_vpt'; fit 'coop'"),
        ("coop_vpt", {"class_specific": True}, "are specific to its classes"),
        (
            "coop_vpt",
            {"text_tokens": 5},
            r"'text_prompt' expected shape \(4, 64\), found \(5, 64\): .* Options: text_tokens=5 there, 4 here; "
            r"vision_tokens=16 there, 4 here\.$",
        ),
    ],
)
def test_what_does_not_fit_is_one_line(
    method: str, options: dict[str, Any], message: str, fitted: FewShotClassifier, pictures: Path, tmp_path: Path
) -> None:
    folder = save(tmp_path, fitted.backbone_, method, **options)
    with pytest.raises(AdapterError, match=message) as caught:
        again(fitted.backbone_, folder).fit(pictures)
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


def test_another_backbone_is_one_line(adapter: Path, pictures: Path, tmp_path: Path, made_up_backbone: str) -> None:
    state = torch.load(made_up_backbone, weights_only=True)
    torch.save(state | {"ln_final.bias": state["ln_final.bias"] + 1}, tmp_path / "other.pt")
    with pytest.raises(AdapterError, match=r"belongs to the backbone '.*made-up\.pt' with sha256 .* but '.*other\.pt'"):
        again(str(tmp_path / "other.pt"), adapter).fit(pictures)


def test_a_wrong_start_is_told_before_the_images_are_read(adapter: Path, tmp_path: Path, made_up_backbone: str) -> None:
    for start, message in ((tmp_path / "nowhere", "no adapter at"), (tmp_path, "is not an adapter")):
        with pytest.raises(AdapterError, match=message):
            again(made_up_backbone, start).settings()
    with pytest.raises(AdapterError, match="cannot start a fit of 'dapt'"):
        FewShotClassifier("dapt", made_up_backbone, start_from=adapter).fit("no pictures")
    damaged = Path(shutil.copytree(adapter, tmp_path / "damaged"))
    blob = (damaged / "adapter.safetensors").read_bytes()
    (damaged / "adapter.safetensors").write_bytes(blob[:-1] + bytes([blob[-1] ^ 1]))
    method = METHODS["coop_vpt"](daptune.load_backbone(made_up_backbone), CLASSES, make_config("coop_vpt", OPTIONS))
    with pytest.raises(AdapterError, match="is damaged"):
        start_from(method, damaged)


def test_options_that_change_the_meaning_alone_are_logged(
    fitted: FewShotClassifier, adapter: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = OPTIONS | {"class_position": "front"}
    method = METHODS["coop_vpt"](fitted.backbone_, ["dog"], make_config("coop_vpt", options))
    with caplog.at_level(logging.WARNING, "daptune"):
        start_from(method, adapter)
    assert "learned with other options: class_position=end there, front here." in caplog.text
    caplog.clear()
    start_from(METHODS["coop_vpt"](fitted.backbone_, ["dog"], make_config("coop_vpt", OPTIONS)), adapter)
    assert not caplog.records


def test_a_stopped_fit_goes_on_from_the_same_start_alone(
    made_up_backbone: str, paths_and_labels: tuple[list[str], list[str]], adapter: Path, tmp_path: Path
) -> None:
    def stop_early(state: Any) -> None:
        if state.step == 1:
            os.kill(os.getpid(), 2)

    whole = again(made_up_backbone, adapter).fit(*paths_and_labels)
    with pytest.raises(Interrupted):
        again(made_up_backbone, adapter).fit(*paths_and_labels, run_dir=tmp_path / "run", progress=stop_early)
    for other in (None, save(tmp_path, whole.backbone_, "coop_vpt", **OPTIONS)):
        with pytest.raises(TrainingError, match="started with different settings: start is"):
            again(made_up_backbone, adapter, start_from=other).fit(
                *paths_and_labels, run_dir=tmp_path / "run", resume=True
            )
    rest = again(made_up_backbone, adapter).fit(*paths_and_labels, run_dir=tmp_path / "run", resume=True)
    assert torch.equal(whole.method_.text_prompt, rest.method_.text_prompt)


def test_several_tasks_and_then_another(
    made_up_backbone: str, pictures: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = read_source(pictures).train
    other = read_source(shutil.copytree(pictures, tmp_path / "other")).train
    joined = join_tables({"one": table, "two": other}, qualify=True)
    options = {"tasks": joined.tasks, "text_tokens": 2, "vision_tokens": 2, "network_width": 16}
    source = FewShotClassifier("mvlpt", made_up_backbone, shots=2, method_options=options, train_options=QUICK)
    source.fit(joined.table)
    assert len(source.classes_) == 6 and source.train_table_.counts().tolist() == [2] * 6
    source.save(tmp_path / "start")
    loaded = daptune.load(tmp_path / "start")
    assert loaded.method_.config.tasks == (3, 3)  # type: ignore[attr-defined]
    first = list(pictures.rglob("*.png"))[:4]
    assert (loaded.predict_proba(first) == source.predict_proba(first)).all()
    assert loaded.with_classes(["dog", "horse"]).predict_proba(first).shape == (4, 2)
    rest = {name: value for name, value in options.items() if name != "tasks"}
    there = tmp_path / "start"
    with caplog.at_level(logging.WARNING, "daptune"):
        target = FewShotClassifier(
            "mvlpt", made_up_backbone, shots=2, method_options=rest, train_options=QUICK, start_from=there
        ).fit(pictures)
    assert "other options" not in caplog.text  # the tasks of the source are no option that is missed
    assert len(target.classes_) == 3 and target.record_.data["started_from"] == read_record(there).tensors_sha256
