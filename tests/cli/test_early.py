"""What is checked before the heavy imports is what is checked after them."""

from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import pytest

from daptune import read_source
from daptune.cli.early import check_folder, check_method, check_options, method_options, own_methods
from daptune.errors import DaptuneError, DataError, MethodError, TrainingError
from daptune.methods import METHODS, get_method, make_config
from daptune.methods.options import parse_options
from daptune.train import TrainConfig


def test_the_names_in_the_files_are_those_of_the_methods() -> None:
    assert own_methods() == set(METHODS)


def test_the_options_in_the_files_are_those_of_the_methods() -> None:
    found = {name: method_options(name) for name in METHODS}
    assert found == {name: {field.name for field in fields(method.config_class)} for name, method in METHODS.items()}


@pytest.mark.parametrize("word", ["dapd", "", "coop vtp", "logistic", "d\x1b"])
def test_the_message_is_the_same(word: str) -> None:
    with pytest.raises(MethodError) as late:
        get_method(word)
    with pytest.raises(MethodError) as soon:
        check_method(word)
    assert str(soon.value) == str(late.value)


@pytest.mark.parametrize("word", ["dapt", "Tip-Adapter-F", "coop vpt", "auto"])
def test_any_usual_spelling_passes(word: str) -> None:
    check_method(word)


def test_what_a_plug_in_may_know_is_left_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [SimpleNamespace(name="mine")])
    check_method("mine")


@pytest.mark.parametrize("method", ["dapt", "Tip-Adapter-F", "zero_shot"])
def test_the_message_on_an_option_of_the_method_is_the_same(method: str) -> None:
    with pytest.raises(MethodError) as late:
        make_config(get_method(method).name, {"inter_wieght": "1", "zzz": "2"})
    with pytest.raises(MethodError) as soon:
        check_options(method, ["zzz=2", "inter-wieght=1"], [])
    assert str(soon.value) == str(late.value)


def test_the_message_on_a_setting_of_the_training_is_the_same() -> None:
    with pytest.raises(TrainingError) as late:
        parse_options("training", TrainConfig, {"weight_decai": "0.1"}, TrainingError)
    with pytest.raises(TrainingError) as soon:
        check_options("auto", [], ["weight_decai=0.1"])
    assert str(soon.value) == str(late.value)


@pytest.mark.parametrize(("flag", "words"), [("--set", (["lr"], [])), ("--train", ([], ["lr"]))])
def test_a_setting_needs_a_value(flag: str, words: tuple[list[str], list[str]]) -> None:
    with pytest.raises(DaptuneError, match=f"{flag} expects .*found 'lr'"):
        check_options("dapt", *words)


def test_known_names_pass_whatever_their_values() -> None:
    check_options("dapt", ["inter_weight=much", "text-tokens=4"], ["weight_decay=0"])
    check_options("one of a plug-in", ["anything=1"], [])


def test_the_message_on_a_missing_folder_is_the_same(tmp_path: Path) -> None:
    with pytest.raises(DataError) as late:
        read_source(tmp_path / "nowhere")
    with pytest.raises(DataError) as soon:
        check_folder(tmp_path / "nowhere")
    assert str(soon.value) == str(late.value)
    check_folder(tmp_path)
    check_folder(Path("data:caltech101"))
