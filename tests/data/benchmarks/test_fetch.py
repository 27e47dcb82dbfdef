import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from daptune.data.benchmarks import fetch as module
from daptune.data.benchmarks.fetch import fetch, resolve
from daptune.data.benchmarks.registry import BENCHMARKS, Download
from daptune.errors import DataError

from ...stand_in_hub import StandInHub, running_hub
from .server import FileServer, serving

CONTENT = bytes(range(256)) * 400


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving() as server:
        server.files["a.bin"] = CONTENT
        yield server


def download(server: FileServer, md5: str = "") -> Download:
    return Download(server.address("a.bin"), "a.bin", md5)


def test_a_file_is_fetched_checked_and_told_of(server: FileServer, tmp_path: Path) -> None:
    told: list[tuple[int, int | None]] = []
    target = tmp_path / "sub" / "a.bin"
    md5 = hashlib.md5(CONTENT).hexdigest()
    assert fetch(download(server, md5), target, lambda done, total: told.append((done, total))) == target
    assert target.read_bytes() == CONTENT
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert [path.name for path in target.parent.iterdir()] == ["a.bin"]
    fetch(download(server, md5), target)
    assert len(server.asked) == 1  # it is there, and right


def test_what_broke_off_goes_on_from_there(server: FileServer, tmp_path: Path) -> None:
    server.break_after = 1000
    target = tmp_path / "a.bin"
    with pytest.raises(DataError, match=r"broke off .*1000 of 102400 bytes arrived.*run the same command to resume"):
        fetch(download(server, hashlib.md5(CONTENT).hexdigest()), target)
    assert not target.exists()
    fetch(download(server, hashlib.md5(CONTENT).hexdigest()), target)
    assert server.asked[1] == ("a.bin", "bytes=1000-")
    assert target.read_bytes() == CONTENT


def test_a_file_that_changed_meanwhile_is_fetched_anew(server: FileServer, tmp_path: Path) -> None:
    server.break_after = 1000
    with pytest.raises(DataError):
        fetch(download(server), tmp_path / "a.bin")
    server.files["a.bin"] = CONTENT[::-1]
    fetch(download(server), tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == CONTENT[::-1]


def test_a_part_that_was_whole_is_taken(server: FileServer, tmp_path: Path) -> None:
    server.break_after = 1000
    with pytest.raises(DataError):
        fetch(download(server), tmp_path / "a.bin")
    (tmp_path / "a.bin.part").write_bytes(CONTENT)  # the process was killed just before the last step
    fetch(download(server), tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_a_wrong_checksum_removes_the_file(server: FileServer, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected md5 0000, found"):
        fetch(download(server, "0000"), tmp_path / "a.bin")
    assert not (tmp_path / "a.bin").exists()
    assert not (tmp_path / "a.bin.part").exists()


def test_a_web_page_in_place_of_the_file_is_told(server: FileServer, tmp_path: Path) -> None:
    server.kinds["a.bin"] = "text/html; charset=utf-8"
    with pytest.raises(DataError, match=r"sends a web page in place of a\.bin"):
        fetch(download(server), tmp_path / "a.bin")
    assert not (tmp_path / "a.bin.part").exists()


def test_an_address_that_does_not_answer_is_one_line(server: FileServer, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"answers 404 Not Found; fetch b\.bin by hand"):
        fetch(Download(server.address("b.bin"), "b.bin"), tmp_path / "b.bin")
    server.shutdown()
    server.server_close()
    with pytest.raises(DataError, match="cannot be reached"):
        fetch(download(server), tmp_path / "a.bin")


def test_a_full_disk_is_told_before_it_is_full(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10}))
    with pytest.raises(DataError, match="has 0 MiB free"):
        fetch(download(server), tmp_path / "a.bin")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInHub]:
    with running_hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        monkeypatch.setattr(
            constants, "HF_HUB_OFFLINE", False
        )  # read from the environment by whichever test came first
        yield hub


def test_a_file_of_the_hub_comes_with_its_client(hub: StandInHub, tmp_path: Path) -> None:
    repository = hub.put("datasets/org/set", **{"data/a.bin": CONTENT})
    repository.commit("later", {"data/a.bin": CONTENT[::-1]})
    for revision, content in (("", CONTENT), ("@later", CONTENT[::-1])):
        target = tmp_path / revision / "a.bin"
        fetch(Download(f"hub:org/set/data/a.bin{revision}", "a.bin", hashlib.md5(content).hexdigest()), target)
        assert target.read_bytes() == content
        assert [path.name for path in target.parent.iterdir() if path.is_file()] == ["a.bin"]
    with pytest.raises(DataError, match="expected md5 0000, found"):
        fetch(Download("hub:org/set/data/a.bin", "b.bin", "0000"), tmp_path / "b.bin")
    assert not list(tmp_path.glob("b.bin*"))


def test_a_file_of_the_hub_that_cannot_be_had_is_one_line(hub: StandInHub, tmp_path: Path) -> None:
    hub.put("datasets/org/set", **{"a.bin": CONTENT})
    wrong = {
        "hub:org/none/a.bin": "no repository 'org/none' that you may read; check the name, or run `hf auth login`",
        "hub:org/set/a.bin@2": "org/set has no revision '2'",
        "hub:org/set/b.bin": "org/set has no such file: http://.*/datasets/org/set/resolve/main/b.bin",
    }
    for address, said in wrong.items():
        with pytest.raises(DataError, match=said) as told:
            fetch(Download(address, "a.bin"), tmp_path / "a.bin")
        assert "\n" not in str(told.value)
    assert not (tmp_path / "a.bin").exists()


def test_addresses_of_drive() -> None:
    assert resolve("drive:abc") == "https://drive.google.com/uc?export=download&id=abc"
    assert resolve("https://x/y") == "https://x/y"


def test_every_download_has_an_address_and_a_place() -> None:
    for record in BENCHMARKS.values():
        assert record.downloads or record.manual
        for entry in record.downloads:
            assert resolve(entry.address).startswith(("https://", "http://data.vision.ee.ethz.ch/", "hub:"))
            assert entry.address.startswith("https://") or entry.md5 or entry.address.startswith(("drive:", "hub:"))
            assert all(target in (record.images, ".", "annotations", "meta") for _, target in entry.unpack)
