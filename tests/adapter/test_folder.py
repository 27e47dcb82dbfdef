"""A folder of adapters is listed whatever is in it."""

import shutil
from pathlib import Path

from daptune.adapter.folder import adapters_in
from daptune.adapter.record import read_record


def test_a_broken_adapter_is_shown_as_broken_and_harms_no_other(adapter: Path, tmp_path: Path) -> None:
    for name in ("b", "a", "cut", "bare", "left"):
        shutil.copytree(adapter, tmp_path / name)
    (tmp_path / "cut" / "adapter.json").write_text('{"format_version": 1')
    (tmp_path / "bare" / "adapter.json").unlink()
    (tmp_path / "left").rename(tmp_path / ".left.previous")  # between the two renames of a save
    (tmp_path / "other").mkdir()
    (tmp_path / "note.txt").touch()
    listed = adapters_in(tmp_path)
    assert [each.name for each in listed] == ["a", "b", "bare", "cut", "left"]
    faults = {each.name: each.fault for each in listed if each.record is None}
    assert set(faults) == {"bare", "cut"}
    assert "it has no adapter.json" in faults["bare"] and "is not JSON" in faults["cut"]
    assert all(each.record == read_record(adapter) and not each.fault for each in listed if each.name not in faults)
    assert not list(tmp_path.glob(".*"))
