"""A stranger's adapter chooses the name of its backbone: nothing is fetched and no file of the user's shown for it."""

import json
import shutil
from pathlib import Path

import pytest

import daptune
from daptune.cli import run
from daptune.clip import hub
from daptune.errors import AdapterError, BackboneError
from daptune.serve.limits import Limits


@pytest.fixture
def naming(adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """naming(name) is an adapter whose backbone is called so; whoever asks the network fails."""
    asked: list[str] = []

    def pull(name: str, **_: object) -> Path:
        asked.append(str(name))
        raise BackboneError(f"asked the Hub for {name}")

    monkeypatch.setattr(hub, "pull", pull)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))

    def make(name: str) -> Path:
        place = tmp_path / "stranger"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(adapter, place)
        record = json.loads((place / "adapter.json").read_text())
        record["backbone"]["name"] = name
        (place / "adapter.json").write_text(json.dumps(record))
        return place

    make.asked = asked  # type: ignore[attr-defined]
    return make


@pytest.mark.parametrize("name", ["hf:someone/else", "hf:someone/else@main", "ViT-B-16/openai"])
def test_a_backbone_is_fetched_only_with_consent(
    naming, name: str, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place, asked = str(naming(name)), naming.asked
    verbs = [
        ["predict", place, str(pictures)],
        ["eval", place, str(pictures)],
        ["suggest", place, str(pictures)],
        ["export", place, "--out", str(tmp_path / "m.onnx")],
        ["serve", place, "--port", "0"],
    ]
    for verb in verbs:
        assert run(verb) == 2
        error = capsys.readouterr().err
        assert "--allow-download" in error and f"daptune pull {name}" in error and error.count("\n") == 1
    assert run(["show", place]) == 0 and "--allow-download" in capsys.readouterr().err
    with pytest.raises(AdapterError, match="allow_download=True"):
        daptune.load(place)
    assert not asked
    for number, verb in enumerate([*verbs, ["show", place]], start=1):
        run([*verb, "--allow-download"])
        assert asked == [name] * number and f"asked the Hub for {name}" in capsys.readouterr().err
    with pytest.raises(AdapterError, match="asked the Hub"):
        daptune.load(place, allow_download=True)


def test_a_name_that_the_user_typed_is_consent(naming, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = str(naming("tiny"))
    assert run(["predict", place, str(pictures), "--backbone", "hf:my/own"]) == 2
    assert naming.asked == ["hf:my/own"]


SECRET = "zqxw:x:0:0:the-secret-of-this-file"


@pytest.mark.parametrize("suffix", ["", ".txt", ".pt", ".safetensors", ".bin"])
def test_no_message_holds_bytes_of_a_file_that_an_adapter_names(
    naming, suffix: str, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"passwd{suffix}"
    path.write_text(SECRET)
    place = str(naming(str(path)))
    for verb in (["predict", place, str(pictures)], ["show", place], ["eval", place, str(pictures)]):
        run(verb)
        printed = "".join(capsys.readouterr())
        assert "zqxw" not in printed and "secret" not in printed and str(path) in printed
    with pytest.raises(AdapterError) as raised:
        daptune.load(place)
    assert "zqxw" not in str(raised.value) and str(path) in str(raised.value)


def test_a_file_without_the_name_of_a_checkpoint_is_not_opened(naming, tmp_path: Path) -> None:
    path = tmp_path / "notes"
    path.write_text(SECRET)
    path.chmod(0)  # whoever opened it would be told so, but for root
    with pytest.raises(AdapterError, match=r"must be a checkpoint \(\.safetensors, "):
        daptune.load(naming(str(path)))


def test_a_server_of_a_folder_serves_the_others(naming, adapter: Path, tmp_path: Path) -> None:
    """The stranger comes first by name; the backbone is that of an adapter whose own can be loaded."""
    from daptune.serve.server import make_engine, read_sources

    served = tmp_path / "served"
    shutil.copytree(adapter, served / "good")
    for number, name in enumerate(("hf:someone/else", "/etc/passwd", "tiny")):
        shutil.copytree(naming(name), served / f"a{number}")
    engine = make_engine(read_sources([served]), Limits())
    assert {each.name: each.status for each in engine.adapters()} == {
        "a0": "broken", "a1": "broken", "a2": "ready", "good": "ready",
    }  # fmt: skip
    assert not naming.asked
