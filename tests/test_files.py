"""Files that are replaced whole, what a crash left of them, and differences of two identities in words."""

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from daptune import files
from daptune.files import append, clear, difference, recovered, remove_folder, replacing, scratch, write


@pytest.mark.parametrize(
    ("saved", "now", "words"),
    [
        ({"a": 1}, {"a": 1}, None),
        ({"a": {"b": 1}}, {"a": {"b": 2}}, "a.b is 1 there and 2 now"),
        ({"a": [1, 2]}, {"a": [1, 3]}, "a[1] is 2 there and 3 now"),
        ({"a": [1]}, {"a": [1, 3]}, "a has 1 entries there and 2 now"),
        ({}, {"new": 0.5}, "new is None there and 0.5 now"),
        ({"old": "x"}, {}, "old is 'x' there and None now"),
    ],
)
def test_differences_in_words(saved: Any, now: Any, words: str | None) -> None:
    assert difference(saved, now) == words


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_a_dead_process_left_of_a_folder_is_finished_or_cleared(tmp_path: Path) -> None:
    """Killed while it wrote, between the renames, and while it moved what else was in the old folder."""
    for end in (".new", ".new-4711", ".lock"):
        place = tmp_path / f".a{end}"
        place.mkdir() if "new" in end else place.touch()
    assert recovered(tmp_path / "a") == tmp_path / "a" and names(tmp_path) == []
    (tmp_path / ".a.previous").mkdir()
    (tmp_path / ".a.previous" / "old").touch()
    assert recovered(tmp_path / "a") == tmp_path / "a" and names(tmp_path) == ["a"]
    (tmp_path / ".a.previous").mkdir()
    for name in ("old", "mine"):
        (tmp_path / ".a.previous" / name).write_text("earlier")
    recovered(tmp_path / "a")
    assert names(tmp_path) == ["a"] and names(tmp_path / "a") == ["mine", "old"]
    assert (tmp_path / "a" / "old").read_text() == ""


def test_what_a_live_process_writes_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fcntl")
    monkeypatch.setattr(files, "PATIENCE", 0.05)
    with ThreadPoolExecutor(1) as other, scratch(tmp_path / "a") as fresh, replacing(tmp_path / "b") as half:
        (tmp_path / ".a.previous").mkdir()
        assert other.submit(recovered, tmp_path / "a").result() == tmp_path / ".a.previous"
        other.submit(clear, tmp_path).result()
        assert fresh.is_dir() and half.exists() and (tmp_path / ".a.previous").is_dir()
    clear(tmp_path)
    assert names(tmp_path) == ["a", "b"]


def test_clearing_removes_half_written_files_where_asked(tmp_path: Path) -> None:
    (tmp_path / ".b.new").write_text("half")
    clear(tmp_path, files=False)
    assert names(tmp_path) == [".b.new"]
    write(tmp_path / "b", b"whole")  # takes the place of the other
    assert names(tmp_path) == ["b"] and (tmp_path / "b").read_bytes() == b"whole"
    (tmp_path / ".b.new").write_text("half")
    clear(tmp_path)
    assert names(tmp_path) == ["b"]


def test_writers_of_one_file_take_turns(tmp_path: Path) -> None:
    """Each leaves its whole content: never a mixture."""
    contents = [bytes([number]) * 100_000 for number in range(8)]
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda content: write(tmp_path / "a", content), contents))
    assert (tmp_path / "a").read_bytes() in contents and names(tmp_path) == ["a"]


def test_a_line_is_appended_whole_or_not_at_all(tmp_path: Path) -> None:
    class Full(io.FileIO):
        def write(self, data: Any) -> int:
            if self.tell() > 5:
                raise OSError(28, "No space left on device")
            return super().write(bytes(data)[:4])

    with Full(tmp_path / "a", "a+b") as file:
        append(file, b"one\n")
        with pytest.raises(OSError, match="No space"):
            append(file, b"two and more\n")
    assert (tmp_path / "a").read_bytes() == b"one\n"


def test_a_removed_folder_is_there_or_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    with monkeypatch.context() as patch:
        patch.setattr("daptune.files.shutil.rmtree", lambda *_, **__: None)  # killed before it
        remove_folder(tmp_path / "a")
    assert names(tmp_path) == [".a.new"]
    clear(tmp_path)
    assert names(tmp_path) == []
