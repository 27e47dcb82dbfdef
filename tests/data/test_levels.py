"""A folder one level too high is refused with the one that was meant; images deeper in their classes are read."""

import logging
from pathlib import Path

import pytest

from daptune.data import read_source
from daptune.errors import DataError

PNG = b"\x89PNG\r\n\x1a\n"


def lay(root: Path, *files: str) -> Path:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(PNG)
    return root


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (  # two data sets of the same classes
            ["setA/cat/1.png", "setA/dog/1.png", "setB/cat/1.png", "setB/dog/1.png"],
            r"setA/, setB/ hold sub-folders of the same names \(cat, dog\), which look like the classes; give .*setA",
        ),
        (  # a loose picture in one of them changes nothing
            ["setA/cat/1.png", "setA/dog/1.png", "setB/cat/1.png", "setB/dog/1.png", "notes/1.png"],
            "setA/, setB/ hold sub-folders of the same names",
        ),
        (  # the same, below a split
            ["train/a/x/1.png", "train/a/y/1.png", "train/b/x/1.png", "train/b/y/1.png", "test/a/x/1.png"],
            "train: a/, b/ hold sub-folders of the same names",
        ),
        (  # images deeper in the classes of both
            ["setA/cat/images/1.png", "setA/dog/images/1.png", "setB/cat/images/1.png", "setB/dog/images/1.png"],
            r"\(cat, dog\)",
        ),
        (  # splits within the classes
            ["cat/train/1.png", "cat/test/1.png", "dog/train/1.png", "dog/test/1.png"],
            r"put the splits above the classes: test/cat/",
        ),
        (  # data sets with splits
            ["pets/train/cat/1.png", "pets/train/dog/1.png", "icons/train/x/1.png", "icons/train/y/1.png"],
            r"icons/, pets/ are data sets of their own, no class; give one of them, such as .*/icons\.",
        ),
        (  # one beside ordinary classes
            ["pets/train/cat/1.png", "pets/train/dog/1.png", "pets/test/cat/1.png", "horse/1.png"],
            r"pets/ is a data set of its own, no class",
        ),
        (  # published ones, by their own files
            ["caltech-101/101_ObjectCategories/ant/1.png", "eurosat/2750/Forest/1.png", "eurosat/2750/River/1.png"],
            r"caltech-101/, eurosat/ are data sets of their own",
        ),
    ],
)
def test_one_level_too_high_is_refused(tmp_path: Path, files: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_source(lay(tmp_path, *files))
    assert "\n" not in str(caught.value)


def test_a_folder_of_split_files_is_one_of_data_sets(tmp_path: Path) -> None:
    lay(tmp_path, "a/jpg/x/1.png", "b/jpg/x/1.png")
    for name in "ab":
        (tmp_path / name / "split_zhou_Made.json").write_text("{}")
    with pytest.raises(DataError, match="a/, b/ are data sets of their own"):
        read_source(tmp_path)


@pytest.mark.parametrize(
    "files",
    [
        ["cat/images/1.png", "dog/images/1.png"],  # one level of the same name everywhere
        ["cat/images/raw/1.png", "dog/images/raw/1.png"],
        ["cat/images/1.png", "dog/images/1.png", "dog/more/1.png"],  # and one that a single class has
        ["cat/1.png", "cat/persian/1.png", "dog/persian/1.png", "dog/1.png"],  # images directly in them
        ["cat/1.png", "dog/images/1.png"],
        ["cat/train/1.png", "dog/train/1.png"],  # one split's name alone is an ordinary level
    ],
)
def test_images_deeper_in_their_classes_are_read(
    tmp_path: Path, files: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    splits = read_source(lay(tmp_path, *files))
    assert splits.train.class_names == ("cat", "dog") and len(splits.train) == len(files)
    assert "sub-folders" not in caplog.text or "more" in files[-1]


def test_sub_folders_of_each_classes_own_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """They may be breeds, or the classes of two data sets: nobody can know."""
    lay(tmp_path, "cat/persian/1.png", "cat/siamese/1.png", "dog/pug/1.png", "dog/beagle/1.png")
    with caplog.at_level(logging.WARNING, "daptune"):
        assert read_source(tmp_path).train.class_names == ("cat", "dog")
    assert len(caplog.records) == 1 and "their 4 sub-folders (beagle, persian, pug, siamese)" in caplog.text
