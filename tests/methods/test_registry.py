"""METHODS: every file of the folder, and plug-ins."""

from dataclasses import fields, is_dataclass
from importlib.metadata import EntryPoint
from inspect import getsource

import pytest

from daptune import methods, presets
from daptune.errors import MethodError
from daptune.methods import METHODS, Method, get_method, make_config
from daptune.methods.zero_shot import ZeroShot
from daptune.names import plain_key


def test_the_methods_of_this_folder_are_there_oldest_first() -> None:
    assert {"zero_shot", "linear_probe", "coop", "vpt", "coop_vpt", "dapt"} <= set(METHODS)
    years = [method.year for method in METHODS.values()]
    assert years == sorted(years)


@pytest.mark.parametrize("method", METHODS.values(), ids=list(METHODS))
def test_a_method_says_what_it_is(method: type[Method]) -> None:
    assert METHODS[method.name] is method is get_method(method.name)
    assert method.title and 2015 < method.year < 2100 and method.__doc__
    config = method.config_class
    assert is_dataclass(config) and config.__dataclass_params__.frozen  # type: ignore[attr-defined]
    module = __import__(method.__module__, fromlist=["_"])
    assert "arXiv" in module.__doc__ and "Official" in module.__doc__


@pytest.mark.parametrize("method", METHODS.values(), ids=list(METHODS))
def test_every_option_is_documented_under_its_field(method: type[Method]) -> None:
    sources = [getsource(base) for base in method.config_class.__mro__ if base.__module__.startswith("daptune")]
    lines = [line.strip() for source in sources for line in source.splitlines()]
    for field in fields(method.config_class):
        at = next(i for i, line in enumerate(lines) if line.startswith(f"{field.name}: "))
        assert lines[at + 1].startswith('"""'), f"{method.config_class.__name__}.{field.name} has no docstring"


def test_a_plugin_joins_and_a_broken_one_is_left_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Other(ZeroShot):
        name = "other"

    class Clash(ZeroShot):
        name = "dapt"

    found = {"good": Other, "clash": Clash, "no_class": 3}

    class Point(EntryPoint):
        def load(self) -> object:
            return found[self.name]

    points = [Point(name, "somewhere:thing", methods.GROUP) for name in (*found, "broken")]
    monkeypatch.setattr(methods, "entry_points", lambda group: points)
    registered = methods._register()
    assert registered["other"] is Other and registered["dapt"] is METHODS["dapt"]
    assert [record.args[0] for record in caplog.records] == ["dapt", "no_class", "broken"]  # type: ignore[index]


@pytest.mark.parametrize("spelling", ["tip_adapter", "tip-adapter", "Tip-Adapter", "TipAdapter"])
def test_case_and_hyphens_do_not_count(spelling: str) -> None:
    assert get_method(spelling).name == "tip_adapter"
    assert make_config(spelling, {}) == make_config("tip_adapter", {})


def test_names_are_those_of_one_method() -> None:
    assert len({plain_key(name) for name in METHODS}) == len(METHODS)
    with pytest.raises(MethodError, match="Did you mean 'coop'"):
        get_method("co op t")


def test_presets_take_them_too() -> None:
    expected = presets.resolve("paper", "dapt", shots=4, dataset="oxford_pets")
    assert presets.resolve("paper", "DAPT", shots=4, dataset="OxfordPets") == expected
    assert presets.resolve("paper", "dapt", shots=4, dataset="Oxford-Pets") == expected
