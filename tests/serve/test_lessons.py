"""What is taught, on disk: nothing else is the state, and no name leads out of the folder."""

from pathlib import Path

import pytest
from PIL import Image

from daptune.data.sources import read_source
from daptune.serve.lessons import STATE_FILE, STORED_SIDE, Lesson, LessonClass, Lessons
from daptune.serve.limits import Refused


def picture(colour: str, size: tuple[int, int] = (20, 10)) -> Image.Image:
    return Image.new("RGB", size, colour)


def test_the_folder_is_the_state_and_daptune_fit_reads_it(tmp_path: Path) -> None:
    lessons = Lessons(tmp_path)
    for stray in (".x.images", "a:b.images"):  # not made by a lesson: no reason to fail
        (tmp_path / stray).mkdir()
    assert lessons.all() == []
    lessons.create("my birds", ["robin", "blue tit (male)"])
    first = lessons.add_image("my birds", "robin", picture("red"))
    assert lessons.add_image("my birds", "robin", picture("red")) == first
    second = lessons.add_image("my birds", "blue tit (male)", picture("blue", (2000, 1000)))
    expected = Lesson(
        "my birds", [LessonClass("robin", [first]), LessonClass("blue tit (male)", [second])], trained=False
    )
    assert Lessons(tmp_path).all() == [expected] == [lessons.get("my birds")]
    table = read_source(tmp_path / "my birds.images").train
    assert table.class_names == ("blue tit (male)", "robin") and len(table) == 2
    with Image.open(lessons.image("my birds", "blue tit (male)", second)) as kept:
        assert kept.size == (STORED_SIDE, STORED_SIDE // 2)


def test_classes_stay_in_the_order_in_which_they_were_typed(tmp_path: Path) -> None:
    lessons = Lessons(tmp_path)
    lessons.create("x", ["fruit", "bird", "clock"])
    lessons.add_class("x", "apple")
    lessons.add_class("x", "bird")  # there already
    lessons.remove_class("x", "fruit")
    lessons.add_class("x", "fruit")
    (tmp_path / "x.images" / "aaa").mkdir()  # by hand
    expected = ["bird", "clock", "apple", "fruit", "aaa"]
    for again in (lessons, Lessons(tmp_path)):
        assert [each.name for each in again.get("x").classes] == expected


@pytest.mark.parametrize("damage", ["", "[", "[]", '{"classes": 3}', '{"classes": [["b"]], "events": [{"kind": 1}]}'])
def test_without_a_sound_state_classes_are_sorted(tmp_path: Path, damage: str) -> None:
    """Lessons of earlier versions have no state file; one that was damaged is no reason to fail."""
    lessons = Lessons(tmp_path)
    lessons.create("x", ["b", "a"])
    lessons.keep_events("x", [{"type": "done"}])
    state = tmp_path / "x.images" / STATE_FILE
    if damage:
        state.write_text(damage)
    else:
        state.unlink()
    assert [each.name for each in lessons.get("x").classes] == ["a", "b"] and lessons.events("x") == []


def test_what_a_training_told_is_kept_with_the_lesson(tmp_path: Path) -> None:
    lessons = Lessons(tmp_path)
    lessons.create("x", ["b", "a"])
    assert lessons.events("x") == []
    told = [{"type": "waiting"}, {"type": "done", "adapter": "x"}]
    lessons.keep_events("x", told)
    assert Lessons(tmp_path).events("x") == told and [each.name for each in lessons.get("x").classes] == ["b", "a"]
    with pytest.raises(Refused, match="no lesson"):
        lessons.events("y")


def test_images_move_and_go(tmp_path: Path) -> None:
    lessons = Lessons(tmp_path)
    lessons.create("x", ["a", "b"])
    identity = lessons.add_image("x", "a", picture("red"))
    lessons.move_image("x", "a", identity, "b")
    assert [each.images for each in lessons.get("x").classes] == [[], [identity]]
    with pytest.raises(Refused, match="no image"):
        lessons.move_image("x", "a", identity, "b")
    with pytest.raises(Refused, match="no class 'c'"):
        lessons.move_image("x", "b", identity, "c")
    assert lessons.image("x", "b", identity).is_file()
    lessons.remove_image("x", "b", identity)
    lessons.remove_class("x", "a")
    lessons.add_class("x", "new")
    assert [each.name for each in lessons.get("x").classes] == ["b", "new"]
    lessons.delete("x")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["", "a/b", "..", "../x", "a\\b", ".x", "x.images", "a\0b", "x ", "nul", "y" * 65])
def test_a_name_with_a_path_in_it_is_refused(tmp_path: Path, name: str) -> None:
    lessons = Lessons(tmp_path / "served")
    lessons.folder.mkdir()
    (tmp_path / "x.images" / "a").mkdir(parents=True)
    lessons.create("good", ["a"])
    for what in (
        lambda: lessons.create(name, []),
        lambda: lessons.get(name),
        lambda: lessons.delete(name),
        lambda: lessons.add_image(name, "a", picture("red")),
    ):
        with pytest.raises(Refused, match="expected a name"):
            what()
    assert [path.name for path in lessons.folder.iterdir()] == ["good.images"]


@pytest.mark.parametrize("name", ["", "a/b", "..", "../x", "a\\b", ".x", "a\nb", " a", "a:b", "y" * 65])
def test_a_class_with_a_path_in_it_is_refused(tmp_path: Path, name: str) -> None:
    lessons = Lessons(tmp_path)
    lessons.create("good", ["a"])
    identity = lessons.add_image("good", "a", picture("red"))
    for what in (
        lambda: lessons.create("other", [name]),
        lambda: lessons.add_class("good", name),
        lambda: lessons.remove_class("good", name),
        lambda: lessons.move_image("good", "a", identity, name),
    ):
        with pytest.raises(Refused, match="expected a class name"):
            what()
    for odd in ("../a", identity + "/..", "", identity.upper() + "G"):
        with pytest.raises(Refused, match="no image"):
            lessons.image("good", "a", odd)
    assert [path.name for path in tmp_path.iterdir()] == ["good.images"]


def test_names_are_taken_once(tmp_path: Path) -> None:
    lessons = Lessons(tmp_path)
    (tmp_path / "adapter").mkdir()
    lessons.create("mine", [])
    for name in ("adapter", "mine"):
        with pytest.raises(Refused, match="already"):
            lessons.create(name, [])
    with pytest.raises(Refused, match="found one twice"):
        lessons.create("twins", ["a", "a"])
