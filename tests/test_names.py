"""Class names as CLIP reads them, and the one rule of what a list of them may hold."""

import logging
import unicodedata
from typing import Any

import pytest

from daptune.errors import DataError, MethodError
from daptune.names import check_class_names, name_key, plain_key, readable, sort_key


def test_case_underscores_blanks_and_unicode_form_do_not_count() -> None:
    assert readable("sun_glasses_") == "sun glasses "
    assert name_key(" Sun__Glasses ") == name_key("sun glasses") == "sun glasses"
    assert name_key("é") == name_key(unicodedata.normalize("NFD", "É")) and name_key("e") != name_key("é")
    assert sorted(["é", "f", unicodedata.normalize("NFD", "é") + "a"], key=sort_key)[0] == "f"


def test_names_of_the_package_in_any_usual_spelling() -> None:
    assert plain_key("Tip-Adapter") == plain_key("tip_adapter") == "tipadapter" != plain_key("tip_adapter_f")


@pytest.mark.parametrize("alike", ["refused", "marked", "logged"])
@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "expected at least 1 classes, found none"),
        ("cat", "found the text 'cat'"),
        (["cat", " _"], "found ' _' at index 1"),
        (["cat", 3], "found 3 at index 1"),
        (["cat", "dog", "cat"], "'cat' occurs twice|'cat' and 'cat' make the same prompt"),
    ],
)
def test_names_that_cannot_be_used_are_named(names: Any, message: str, alike: Any) -> None:
    for error in (DataError, MethodError):
        with pytest.raises(error, match=message) as caught:
            check_class_names(names, alike=alike, error=error)
        assert "\n" not in str(caught.value)


def test_fewest() -> None:
    assert check_class_names(["cat"]) == ("cat",)
    with pytest.raises(DataError, match="expected at least 2 classes, found only 'cat'"):
        check_class_names(["cat"], fewest=2)


@pytest.mark.parametrize(
    ("names", "refused_by"),
    [
        (["Dog", "dog ", "car"], {"refused", "marked"}),
        (["hot_dog", "hot dog"], {"refused", "marked"}),
        (["Cat", "cat"], {"refused", "marked"}),
        (["missile", "bird", "missile_", "missile__"], {"refused"}),  # as a published list has it
        (["cat", "dog"], set()),
    ],
)
def test_names_that_read_alike(names: list[str], refused_by: set[str], caplog: pytest.LogCaptureFixture) -> None:
    for alike in ("refused", "marked", "logged"):
        caplog.clear()
        if alike in refused_by:
            with pytest.raises(DataError, match="make the same prompt"):
                check_class_names(names, alike=alike)  # type: ignore[arg-type]
            continue
        with caplog.at_level(logging.WARNING, "daptune"):
            assert check_class_names(names, alike=alike) == tuple(names)  # type: ignore[arg-type]
        assert ("cannot distinguish them" in caplog.text) == bool(refused_by)


def test_a_name_that_stands_twice_behind_one_that_reads_the_same() -> None:
    with pytest.raises(DataError, match="'cat' occurs twice"):
        check_class_names(["Cat", "cat", "cat"], alike="logged")
