"""What is checked before the heavy imports is what is checked after them."""

from types import SimpleNamespace

import pytest

from daptune.cli import early
from daptune.cli.early import check_method, own_methods
from daptune.errors import MethodError
from daptune.methods import METHODS, get_method


def test_the_names_in_the_files_are_those_of_the_methods() -> None:
    assert own_methods() == set(METHODS)


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
    monkeypatch.setattr(early, "entry_points", lambda group: [SimpleNamespace(name="mine")])
    check_method("mine")
