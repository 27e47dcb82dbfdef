"""Class names as CLIP reads them, and the one rule of what a list of them may hold."""

import logging
import unicodedata
from pathlib import Path
from typing import Any

import pytest

import daptune
from daptune.clip.tokenizer import Tokenizer
from daptune.data import read_source
from daptune.data.demo import demo_styles, extract_demo
from daptune.errors import DataError, MethodError
from daptune.names import (
    check_class_names,
    fault_of_name,
    match_names,
    name_key,
    names_by_class,
    own_names,
    plain_key,
    readable,
    sort_key,
    unreadable,
)


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


def test_labels_are_their_own_names_unless_others_are_given() -> None:
    assert names_by_class(["cat", "dog"]) == {"cat": ("cat",), "dog": ("dog",)}
    given = names_by_class({17: "cat", "n02": ["dog", "puppy"]})
    assert given == {"17": ("cat",), "n02": ("dog", "puppy")}
    assert own_names(names_by_class(["cat"])) and not own_names(given) and own_names({"cat": ["cat"]})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"1": "cat", "2": " "}, "class '2': expected a name of letters, found ' '"),
        ({"1": []}, "class '1': expected a name of letters, found an empty list"),
        ({"1": 3}, "class '1': expected a name of letters, found 3"),
        ({"1": ["cat", "Cat"]}, "class '1': the name 'Cat' is given twice; remove one"),
        ({}, "expected at least 1 classes"),
    ],
)
def test_names_that_cannot_be_used(given: Any, message: str) -> None:
    with pytest.raises(MethodError, match=message):
        names_by_class(given, error=MethodError)


def test_names_of_the_classes_of_a_source(caplog: pytest.LogCaptureFixture) -> None:
    given = {"Hot dog": "sausage", 3: ["cat", "kitten"]}
    assert match_names(("3", "hot_dog"), given) == {"3": ("cat", "kitten"), "hot_dog": ("sausage",)}
    assert not caplog.records
    assert match_names(["3"], given) == {"3": ("cat", "kitten")}
    assert "the names for 'Hot dog' are left out: there are no such classes" in caplog.text
    with pytest.raises(DataError, match=r"no name is given for 1 of the 2 classes: '4'; .*names for 'Hot dog'"):
        match_names(["3", "4"], given)
    with pytest.raises(DataError, match="given for 'a b' and for 'A_b', which are one class"):
        match_names(["a b"], {"a b": "x", "A_b": "y"})


def test_classes_with_the_same_names_are_told(caplog: pytest.LogCaptureFixture) -> None:
    names_by_class({"1": ["crane", "bird"], "2": ["bird", "Crane"], "3": "crane"})
    assert caplog.messages == ["Classes '1' and '2' have the same names: CLIP cannot distinguish them."]


# names of the benchmark data sets that are least like words
ODD = [
    "707-320", "A300B4", "A310", "An-12", "BAE_125", "C-130", "C-47", "CRJ-200", "DC-3", "DH-82", "DR-400", "F-16A/B",
    "F/A-18", "Il-76", "L-1011", "MD-11", "PA-28", "SR-20", "Tu-134", "Yak-42", "Fokker_100", "BMW_X6_SUV_2012",
    "GMC_Savana_Van_2012", "pho", "gyoza", "lynx", "gar", "ox", "tv", "t-shirt", "Yin_yang", "hi-hat", "HighwayOrRoad",
    "001.Black_footed_Albatross", "rack_car_2", "7up",
]  # fmt: skip


@pytest.fixture(params=["CLIP", "tiny"])
def encode(request: pytest.FixtureRequest) -> Any:
    own = Path(daptune.__file__).parent / "clip" / "tiny" / "tokenizer.json"
    return Tokenizer(own if request.param == "tiny" else None).encode


def test_ordinary_names_are_readable(encode: Any, tmp_path: Path) -> None:
    listed = Path(daptune.__file__).parent / "data" / "benchmarks" / "imagenet_classnames.txt"
    imagenet = [line.split(" ", 1)[1] for line in listed.read_text("utf-8").splitlines()]
    demo = read_source(extract_demo(tmp_path) / demo_styles()[0]).train.class_names
    assert len(imagenet) == 1000 and len(demo) > 20
    assert unreadable([*imagenet, *demo, *ODD], encode) == []


def test_ids_numbers_and_other_scripts_are_not(encode: Any) -> None:
    ids = ["n01532829", "17", "003", "cls_03", "class3", "img_0012", "id-12345", "label 2"]
    strange = ["猫", "собака", "ネコ", "고양이", "γάτα", "قطة", "कुत्ता", "כלב"]
    assert unreadable([*ids, "dog", *strange, "猫 (cat)"], encode) == [*ids, *strange]
    assert unreadable([*ids, *strange]) == ids


@pytest.mark.parametrize("name", ["a\x1b[2J", "a\x00", "a\tb", "a\nb", "a\u202eb", "a\ud800", "\U0001f600" * 251])
def test_a_name_that_cannot_be_written_or_printed_is_no_class(name: str) -> None:
    with pytest.raises(DataError, match="cannot be used") as caught:
        check_class_names([name, "dog"])
    str(caught.value).encode()


def test_names_are_counted_in_bytes() -> None:
    assert fault_of_name("\U0001f600" * 50, 200) == ""
    assert fault_of_name("\U0001f600" * 51, 200) == "it has 204 bytes, the limit is 200"
    joined = "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", "\U0001f469\u200d\U0001f33e"  # joiners belong to words
    assert check_class_names([*joined, "dog"]) == (*joined, "dog")


def test_the_number_of_classes_and_names_is_limited() -> None:
    with pytest.raises(DataError, match="at most 25,000 classes, found 25,001"):
        check_class_names([f"name {place}" for place in range(25_001)])
    many = tuple(f"name {place}" for place in range(1_000))
    with pytest.raises(DataError, match="has 1,000 names; with 300 classes, give each 666 at most"):
        names_by_class({f"class {place}": many if place == 7 else "x" for place in range(300)})
