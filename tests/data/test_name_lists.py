"""Lists of names, in each form, and every fault as one line."""

from pathlib import Path

import pytest

from daptune.data.name_lists import read_names
from daptune.errors import DataError


@pytest.mark.parametrize(
    ("file", "content", "found"),
    [
        (
            "n.csv",
            "folder,name\n1,pink primrose\n猫,cat\n猫,kitten\n",
            {"1": ("pink primrose",), "猫": ("cat", "kitten")},
        ),
        ("n.csv", "\ufeffName;Folder\ncat, purring;1\n", {"1": ("cat, purring",)}),
        ("n.tsv", "label\tname\n1\tcat\n", {"1": ("cat",)}),
        ("n.json", '{"1": "pink primrose", "2": ["cat", "kitten"]}', {"1": ("pink primrose",), "2": ("cat", "kitten")}),
        ("n.json", '{"0": ["n01440764", "tench"]}', {"0": ("tench",), "n01440764": ("tench",)}),
    ],
)
def test_forms(tmp_path: Path, file: str, content: str, found: dict[str, tuple[str, ...]]) -> None:
    (tmp_path / file).write_text(content, "utf-8")
    assert read_names(tmp_path / file) == found


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("n.txt", b"1 cat", "expected names in a .csv"),
        (
            "n.csv",
            b"1,cat\n2,dog\n",
            "expected the columns folder,name, found 1, cat; put folder,name in the",
        ),
        ("n.csv", b"folder,title\n1,cat\n", "expected the columns folder,name, found folder, title"),
        ("n.csv", b"folder,name\n1,cat\n1,Cat\n", "'1' has the name 'Cat' twice; remove one"),
        ("n.csv", b"folder,name\n1,\n", "the name of '1' is empty; give it one of letters"),
        ("n.csv", b"folder,name\n,cat\n", "the name 'cat' has no folder; add it in front"),
        ("n.csv", b"folder,name\n1,cat, tabby\n", "row 1: expected 2 values as in the header, found 3; put quotes"),
        ("n.csv", "folder,name\n1,été\n".encode("latin-1"), "save it as CSV in UTF-8"),
        ("n.csv", b"folder,name\n", "expected a name for each class, found none"),
        ("n.csv", b"", "expected the columns folder,name"),
        ("n.json", '{"1": "été"}'.encode("latin-1"), "is not in UTF-8 .*; save it in UTF-8"),
        ("n.json", b'["cat", "dog"]', "expected an object of texts such as .*, found a list"),
        ("n.json", b'"cat"', "found a str"),
        ("n.json", b'{"1": 3}', "found 3 for '1'; give a text, or a list of texts"),
        ("n.json", b'{"1": {"name": "cat"}}', "found .*name.* for '1'"),
        ("n.json", b'{"1": []}', "for '1'; give a text"),
        ("n.json", b'{"1": "cat", "1": "dog"}', "'1' occurs twice; put its names into one list"),
        ("n.json", b'{"1": " "}', "the name of '1' is empty"),
        ("n.json", b"{", "is not JSON"),
        ("n.json", b"[" * 100_000, "is not JSON .*nested too deeply"),
        ("n.json", b"{}", "found none"),
    ],
)
def test_faults(tmp_path: Path, file: str, content: bytes, message: str) -> None:
    (tmp_path / file).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_names(tmp_path / file)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_or_too_large(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot be read .No such file"):
        read_names(tmp_path / "n.csv")
    with (tmp_path / "n.json").open("wb") as file:
        file.truncate(65_000_000)
    with pytest.raises(DataError, match="64 MB at most, found 65 MB"):
        read_names(tmp_path / "n.json")
