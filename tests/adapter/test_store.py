"""Adapters: what is saved comes back bit for bit, and every kind of damage is one clear line."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from daptune.adapter.record import FORMAT_VERSION, AdapterRecord, check_target, read_record
from daptune.adapter.store import load_adapter, make_record, save_adapter
from daptune.classifier import FewShotClassifier
from daptune.clip.backbone import load_backbone
from daptune.errors import AdapterError
from daptune.methods import METHODS
from daptune.methods.ensemble import Ensemble, Mix

from ..conftest import CLASSES


@pytest.fixture
def copy(adapter: Path, tmp_path: Path) -> Path:
    """An adapter that a test may damage."""
    return Path(shutil.copytree(adapter, tmp_path / "copy"))


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "adapter.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes), "utf-8")


def test_tensors_and_record_come_back(adapter: Path, fitted: FewShotClassifier) -> None:
    loaded = load_adapter(adapter)
    saved = fitted.method_.state_dict()
    assert loaded.method.state_dict().keys() == saved.keys()
    assert all(torch.equal(value, saved[name]) for name, value in loaded.method.state_dict().items())
    assert loaded.record.class_names == tuple(fitted.classes_)
    assert loaded.record.method_config["text_tokens"] == 4
    assert loaded.record.train_config["epochs"] == 6
    assert loaded.record.data["images"] == 12
    assert loaded.record.backbone["sha256"] == loaded.backbone.sha256
    assert not loaded.method.training
    assert not any(parameter.requires_grad for parameter in loaded.method.parameters())


def test_names_of_prompts_come_back_and_the_file_is_of_format_two(adapter: Path, tmp_path: Path) -> None:
    backbone = load_backbone(str(read_record(adapter).backbone["name"]), precision="fp32")
    method = METHODS["zero_shot"](backbone, {"猫": ("cat", "kitten"), "1": "dog"})
    folder = save_adapter(tmp_path / "named", method, make_record(method, backbone))
    loaded = load_adapter(folder)
    assert loaded.method.names == {"猫": ("cat", "kitten"), "1": ("dog",)}
    assert loaded.record.prompt_names == {"猫": ["cat", "kitten"], "1": ["dog"]}
    assert torch.equal(loaded.method.text_features(), method.text_features())
    assert json.loads((folder / "adapter.json").read_text("utf-8"))["format_version"] == 2
    plain = METHODS["zero_shot"](backbone, ["cat", "dog"])
    own = save_adapter(tmp_path / "own", plain, make_record(plain, backbone))
    assert json.loads((own / "adapter.json").read_text("utf-8"))["format_version"] == 1
    assert read_record(save_adapter(tmp_path / "again", loaded.method, loaded.record)).format_version == 2


def test_the_folder_is_small_and_holds_three_files(adapter: Path) -> None:
    sizes = {path.name: path.stat().st_size for path in adapter.iterdir()}
    assert set(sizes) == {"adapter.safetensors", "adapter.json", "README.md"}
    assert sum(sizes.values()) < 8_000
    with safetensors.safe_open(str(adapter / "adapter.safetensors"), framework="pt") as file:
        kinds = {name: str(file.get_tensor(name).dtype) for name in file.keys()}  # noqa: SIM118  # not a mapping
    learned = {"text_prompt": "torch.float32", "vision_prompt": "torch.float32"}
    matrices = dict.fromkeys(("ensemble.weights", "ensemble.prototypes"), "torch.float16")
    assert kinds == learned | matrices | {"ensemble.bias": "torch.float32"}


def test_saving_twice_gives_the_same_bytes(fitted: FewShotClassifier, tmp_path: Path) -> None:
    first, second = (fitted.save(tmp_path / name) for name in "ab")
    for path in first.iterdir():
        assert path.read_bytes() == (second / path.name).read_bytes()


def test_the_card_names_what_matters(adapter: Path) -> None:
    card = (adapter / "README.md").read_text("utf-8")
    assert card.startswith("---\nlibrary_name: daptune\n")
    assert "blue_thing, green thing, red" in card
    assert "512 parameters" in card
    mix = read_record(adapter).ensemble
    text, support, learned = (f"{weight:.2f}" for weight in mix["a"])
    assert f"hand-written prompts {text}, training images {support}, learned prompts {learned}" in card
    assert "predict --reject 0.05" in card  # it has statistics of known images


def test_saving_replaces_an_adapter_and_keeps_other_files(copy: Path, fitted: FewShotClassifier) -> None:
    (copy / "notes.txt").write_text("mine")
    (copy / "adapter.safetensors").write_bytes(b"old")
    fitted.save(copy)
    assert load_adapter(copy).record.method == "coop_vpt"
    assert (copy / "notes.txt").read_text() == "mine"
    assert [path.name for path in copy.parent.iterdir() if path.name.startswith(".")] == []


def test_saving_refuses_other_folders_and_files(fitted: FewShotClassifier, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"x")
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(AdapterError, match="holds something that is not an adapter"):
        fitted.save(tmp_path / "photos")
    with pytest.raises(AdapterError, match="is a file"):
        fitted.save(tmp_path / "file")
    assert (tmp_path / "photos" / "cat.jpg").read_bytes() == b"x"


def test_an_empty_folder_and_missing_parents_are_fine(fitted: FewShotClassifier, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    fitted.save(tmp_path / "empty")
    fitted.save(tmp_path / "a" / "b")
    assert read_record(tmp_path / "a" / "b").method == "coop_vpt"


@pytest.mark.parametrize("stage", ["write", "rename"])
def test_a_full_disk_keeps_the_old_adapter(
    stage: str, copy: Path, fitted: FewShotClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path.name: path.read_bytes() for path in copy.iterdir()}

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    if stage == "write":
        monkeypatch.setattr("daptune.files.os.fsync", fail)
    else:
        rename = Path.rename
        monkeypatch.setattr(Path, "rename", lambda path, to: fail() if path.name.endswith(".new") else rename(path, to))
    with pytest.raises(AdapterError, match="the disk is full; the previous files are kept"):
        fitted.save(copy)
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == before
    assert list(copy.parent.glob(".*")) == []


def test_a_replacement_that_was_cut_off_leaves_the_previous_one_loadable(copy: Path) -> None:
    copy.rename(copy.with_name(".copy.previous"))
    assert load_adapter(copy).record.method == "coop_vpt"


DAMAGE: dict[str, tuple[Any, str]] = {
    "missing folder": (lambda f: shutil.rmtree(f), "no adapter at"),
    "missing json": (lambda f: (f / "adapter.json").unlink(), "is not an adapter"),
    "missing tensors": (lambda f: (f / "adapter.safetensors").unlink(), "safetensors is damaged: it is missing"),
    "truncated json": (lambda f: cut(f / "adapter.json"), "is not JSON"),
    "truncated tensors": (lambda f: cut(f / "adapter.safetensors"), "its sha256 is not"),
    "binary json": (lambda f: (f / "adapter.json").write_bytes(b"\xff\xfe\x00"), "is not JSON"),
    "deep json": (lambda f: (f / "adapter.json").write_text("[" * 100_000), "damaged"),
    "list json": (lambda f: (f / "adapter.json").write_text("[]"), "expected an object, found list"),
    "newer": (
        lambda f: edit(f, format_version=FORMAT_VERSION + 1),
        f"made by a newer daptune: format {FORMAT_VERSION + 1}",
    ),
    "names of other classes": (lambda f: edit(f, names={"cat": ["dog"]}), "'names' must give one name or more"),
    "names as texts": (lambda f: edit(f, names=dict.fromkeys(CLASSES, "dog")), "'names' must give one name or more"),
    "no version": (lambda f: edit(f, format_version=None), "format_version is None"),
    "unknown method": (lambda f: edit(f, method="dapd"), "which this daptune does not have. Did you mean 'dapt'"),
    "unknown option": (lambda f: edit(f, method_config={"magic": 1}), "does not fit this daptune's method 'coop_vpt'"),
    "other shapes": (lambda f: edit(f, method_config={"text_tokens": 5}), "text_prompt should be (5, 64) and is"),
    "bad classes": (lambda f: edit(f, class_names=["a", "a"]), "'class_names' must be different"),
    "no classes": (lambda f: edit(f, class_names=[]), "'class_names' must be different"),
    "classes of another type": (lambda f: edit(f, class_names={"a": 1}), "'class_names' is"),
    "bad temperature": (lambda f: edit(f, temperature=0), "'temperature' is 0"),
    "no backbone": (lambda f: edit(f, backbone={}), "'backbone' has no 'name'"),
    "bad labels": (lambda f: edit(f, labels=[1, 1, 2]), "'labels' must be"),
    "bad shape": (lambda f: edit(f, tensors={"text_prompt": "4x64"}), "a shape for every name"),
    "backbone gone": (
        lambda f: edit(f, backbone={"name": "/nowhere/x.pt", "sha256": "0"}),
        "needs the backbone '/nowhere/x.pt'",
    ),
}


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_one_line_that_says_what_is_wrong(case: str, copy: Path) -> None:
    damage, message = DAMAGE[case]
    damage(copy)
    with pytest.raises(AdapterError) as caught:
        load_adapter(copy)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_field_is_named(copy: Path) -> None:
    path = copy / "adapter.json"
    content = json.loads(path.read_text("utf-8"))
    del content["preprocess"]
    path.write_text(json.dumps(content))
    with pytest.raises(AdapterError, match="'preprocess' is missing"):
        load_adapter(copy)


def test_a_tensor_file_with_the_right_hash_and_other_tensors(copy: Path) -> None:
    blob = safetensors.torch.save({"other": torch.zeros(2)})
    (copy / "adapter.safetensors").write_bytes(blob)
    edit(copy, tensors_sha256=hashlib.sha256(blob).hexdigest(), ensemble={})
    with pytest.raises(AdapterError, match=r"text_prompt should be \(4, 64\) and is absent"):
        load_adapter(copy)
    (copy / "adapter.safetensors").write_bytes(b"nonsense")
    edit(copy, tensors_sha256=hashlib.sha256(b"nonsense").hexdigest())
    with pytest.raises(AdapterError, match="not a safetensors file"):
        load_adapter(copy)


MIX = {"a": [1.0, 2.0, 0.5], "factors": [3.0, 4.0, 0.1], "templates": ["a {}."]}
KNOWN = {"similarity": [0.2, 0.7], "truth": [0.1, 0.6, 0.9]}
WEIGHTS, BIAS = torch.zeros(3, 32, dtype=torch.float16), torch.zeros(3)


@pytest.mark.parametrize(
    ("tensors", "ensemble", "message"),
    [
        ({}, MIX, "'ensemble.weights': [3, 32], 'ensemble.bias': [3]}, found none;"),
        ({"ensemble.bias": BIAS}, MIX, "found {'ensemble.bias': [3]};"),
        ({"ensemble.weights": WEIGHTS[:2], "ensemble.bias": BIAS}, MIX, "found {'ensemble.weights': [2, 32]"),
        ({"ensemble.weights": WEIGHTS, "ensemble.bias": torch.zeros(3, 1)}, MIX, "'ensemble.bias': [3, 1]};"),
        ({"ensemble.weights": WEIGHTS, "ensemble.bias": BIAS}, {}, "expected of the ensemble no tensors, found {"),
        (None, {"a": [1, 2]} | {"factors": MIX["factors"], "templates": MIX["templates"]}, "a: expected a number"),
        (None, MIX | {"a": [1, 2, -1]}, "a: expected a number of at least 0 for each of"),
        (None, MIX | {"factors": [1, 2, float("nan")]}, "NaN is no number of JSON"),
        (None, MIX | {"factors": [1, 2, "3"]}, "factors: expected a number"),
        (None, MIX | {"factors": 7}, "'ensemble' is not one"),
        (None, MIX | KNOWN | {"similarity": [0.5, 0.1]}, "similarity: expected at most 255 ascending numbers up to 1"),
        (None, MIX | KNOWN | {"similarity": [0.5, 1.5]}, "similarity: expected"),
        (None, MIX | KNOWN | {"similarity": ["0.5"]}, "similarity: expected"),
        (None, MIX | KNOWN | {"similarity": [0.5] * 256}, "similarity: expected"),
        (None, MIX | KNOWN | {"similarity": 0.5}, "'ensemble' is not one"),
        (None, MIX | KNOWN | {"truth": [-0.1, 0.2]}, "truth: expected"),
        (None, MIX | KNOWN | {"truth": [float("nan")]}, "NaN is no number of JSON"),
        (None, MIX | KNOWN | {"truth": []}, "similarity and truth: expected both or neither, found one"),
        (None, MIX | KNOWN | {"similarity": []}, "similarity and truth: expected both or neither, found one"),
        ({"ensemble.weights": WEIGHTS, "ensemble.bias": BIAS}, MIX | KNOWN, "expected 'ensemble.prototypes' with"),
        (
            {"ensemble.weights": WEIGHTS, "ensemble.bias": BIAS, "ensemble.prototypes": WEIGHTS[:2].clone()},
            MIX | KNOWN,
            "'ensemble.prototypes': [2, 32]",
        ),
        (None, MIX | {"templates": ["a picture"]}, "templates: expected texts with one {}"),
        (None, MIX | {"templates": []}, "templates: expected texts with one {}"),
        (None, {"a": MIX["a"]}, "'ensemble' is not one"),
        (None, MIX | {"more": 1}, "'ensemble' is not one"),
        (None, "auto", "'ensemble' is 'auto'"),
    ],
)
def test_a_damaged_ensemble_is_one_line(
    tensors: dict[str, torch.Tensor] | None, ensemble: Any, message: str, copy: Path
) -> None:
    path = copy / "adapter.safetensors"
    whole = safetensors.torch.load_file(path)
    if tensors is not None:
        learned = {name: value for name, value in whole.items() if not name.startswith("ensemble.")}
        path.write_bytes(safetensors.torch.save(learned | tensors))
    edit(copy, ensemble=ensemble, tensors_sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    with pytest.raises(AdapterError) as caught:
        load_adapter(copy)
    assert message in str(caught.value) and "is damaged" in str(caught.value) and "\n" not in str(caught.value)


def test_only_an_ensemble_needs_the_newer_format(copy: Path, adapter: Path) -> None:
    """Version 0.1.0 reads format 1, and would take the ensemble's tensors for damage."""
    assert json.loads((adapter / "adapter.json").read_text("utf-8"))["format_version"] == 2
    loaded = load_adapter(adapter)
    loaded.method.ensemble = None
    save_adapter(copy, loaded.method, make_record(loaded.method, loaded.backbone))
    content = json.loads((copy / "adapter.json").read_text("utf-8"))
    assert content["format_version"] == 1 and "ensemble" not in content
    assert set(content["tensors"]) == {"text_prompt", "vision_prompt"}
    assert load_adapter(copy).method.ensemble is None


def test_another_backbone_is_refused_with_both_named(
    adapter: Path, made_up_backbone: str, tmp_path: Path, fitted: FewShotClassifier
) -> None:
    state = torch.load(made_up_backbone, weights_only=True)
    state["positional_embedding"] = state["positional_embedding"] * 1.01
    other = tmp_path / "other.pt"
    torch.save(state, other)
    with pytest.raises(AdapterError) as caught:
        load_adapter(adapter, load_backbone(str(other)))
    assert made_up_backbone in str(caught.value) and str(other) in str(caught.value)
    assert fitted.backbone_.sha256[:12] in str(caught.value)


def test_nothing_is_unpickled(adapter: Path, monkeypatch: pytest.MonkeyPatch, fitted: FewShotClassifier) -> None:
    import pickle

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("pickle was used")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    load_adapter(adapter, fitted.backbone_)


def test_check_target_tells_before_training(tmp_path: Path) -> None:
    assert check_target(tmp_path / "new") == tmp_path / "new"
    (tmp_path / "file").write_text("x")
    with pytest.raises(AdapterError, match="cannot be created"):
        check_target(tmp_path / "file" / "below")


@pytest.mark.parametrize(("classes", "ensemble", "most"), [(100, False, 100_000), (10, True, 125_000)])
def test_vit_b_16_needs_about_100_kb(classes: int, ensemble: bool, most: int, tmp_path: Path) -> None:
    """20,480 numbers in float32 are 82 kB, an ensemble of 10 classes 20 kB, known images 12 kB, and names."""
    from types import SimpleNamespace

    mix = Mix((1, 1, 1), (1, 1, 1), ("a {}.",), (0.12345,) * 255, (0.12345,) * 255)
    matrix = torch.zeros(classes, 512)
    method = SimpleNamespace(
        state_dict=lambda: {"text_prompt": torch.zeros(16, 512), "vision_prompt": torch.zeros(16, 768)},
        title="DAPT",
        name="dapt",
        ensemble=Ensemble(matrix, torch.zeros(classes), matrix, mix) if ensemble else None,
    )
    record = AdapterRecord(
        backbone={"name": "ViT-B-16/openai", "sha256": "0" * 64, "precision": "bf16"},
        method="dapt",
        method_config={},
        class_names=tuple(f"class number {n}" for n in range(classes)),
        preprocess={},
    )
    folder = save_adapter(tmp_path / "vit", method, record)  # type: ignore[arg-type]
    assert sum(path.stat().st_size for path in folder.iterdir()) < most
