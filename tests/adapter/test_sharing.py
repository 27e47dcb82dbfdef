"""Adapters to the Hub and back, against a stand-in on the loopback interface."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import daptune
from daptune.adapter.card import PLACE, model_card
from daptune.adapter.record import read_record
from daptune.adapter.sharing import find_adapter, push_adapter
from daptune.adapter.store import make_record, save_adapter
from daptune.classifier import FewShotClassifier
from daptune.cli import run
from daptune.errors import AdapterError

from ..stand_in_hub import TOKEN, StandInHub, running_hub

FILES = ("adapter.json", "adapter.safetensors")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInHub]:
    from huggingface_hub import constants

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with running_hub() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        yield running


def same(first: Path, second: Path) -> bool:
    return all((first / file).read_bytes() == (second / file).read_bytes() for file in FILES)


def test_what_is_pushed_comes_back_bit_for_bit(
    hub: StandInHub, adapter: Path, fitted: FewShotClassifier, paths_and_labels: tuple[list[str], list[str]]
) -> None:
    done = push_adapter(adapter, "hf:user/colours")
    assert (done.name, done.url) == ("hf:user/colours", f"{hub.url}/user/colours")
    there = hub.repositories["user/colours"]
    stored = there.commits[there.branches["main"]]
    assert set(stored) == {".gitattributes", "README.md", *FILES} and not there.private
    card = stored["README.md"].decode()
    assert 'daptune.load("hf:user/colours")' in card and PLACE not in card

    again = daptune.load("hf:user/colours")
    for name, value in fitted.method_.state_dict().items():
        assert torch.equal(again.method_.state_dict()[name], value)
    assert (again.predict_proba(paths_and_labels[0]) == fitted.predict_proba(paths_and_labels[0])).all()
    folder = find_adapter("hf:user/colours")
    assert same(folder, adapter) and folder.name == there.branches["main"]


def test_the_cache_is_used_without_asking(hub: StandInHub, adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    push_adapter(adapter, "hf:user/colours")
    folder = find_adapter(Path("hf:user/colours"))
    hub.asked.clear()
    assert find_adapter("hf:user/colours") == folder and hub.asked == []
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert find_adapter("hf:user/colours") == folder
    with pytest.raises(AdapterError, match=r"hf:user/other is not in the cache.*HF_HUB_OFFLINE is set.*daptune pull"):
        find_adapter("hf:user/other")


def test_branches_and_commits(hub: StandInHub, adapter: Path) -> None:
    push_adapter(adapter, "hf:user/colours")
    done = push_adapter(adapter, "hf:user/colours", revision="tried")
    assert done.name == "hf:user/colours@tried"
    branches = hub.repositories["user/colours"].branches
    assert branches["main"] != branches["tried"]
    for revision in ("tried", branches["main"]):
        assert same(find_adapter(f"hf:user/colours@{revision}"), adapter)
    with pytest.raises(AdapterError, match="no revision 'v9'"):
        find_adapter("hf:user/colours@v9")


def test_private_stays_private(hub: StandInHub, adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    push_adapter(adapter, "hf:user/secret", private=True)
    assert hub.repositories["user/secret"].private
    assert same(find_adapter("hf:user/secret"), adapter)
    hub.put("user/open", **{"adapter.json": b"{}"})
    with pytest.raises(AdapterError, match="user/open exists and is public"):
        push_adapter(adapter, "hf:user/open", private=True)
    assert len(hub.repositories["user/open"].commits) == 1
    push_adapter(adapter, "hf:user/secret2", private=True)
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(AdapterError, match="no repository 'user/secret2' that you may read"):
        find_adapter("hf:user/secret2")


def test_who_may_not_push_is_told_in_one_line(hub: StandInHub, adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refusal(target: str) -> str:
        with pytest.raises(AdapterError) as caught:
            push_adapter(adapter, target)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    hub.put("user/model", **{"config.json": b"{}", "model.safetensors": b""})
    other = "user/model holds something that is not an adapter (config.json, model.safetensors)"
    assert other in refusal("hf:user/model")
    assert "your login has no permission for this on others/colours" in refusal("hf:others/colours")
    assert "expected hf:user/name to publish to, found 'user/colours'" in refusal("user/colours")
    assert "expected hf:user/name or hf:user/name@revision, found 'hf:colours'" in refusal("hf:colours")
    assert "'user/a--b' is not a valid repository name" in refusal("hf:user/a--b")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert "requires a login (user/new); log in with `hf auth login`" in refusal("hf:user/new")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert "user/new was not published: the Hub cannot be reached" in refusal("hf:user/new")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "HF_HUB_OFFLINE is set" in refusal("hf:user/new")
    assert "user/new" not in hub.repositories


def test_what_is_there_but_is_no_adapter(hub: StandInHub, adapter: Path, tmp_path: Path) -> None:
    hub.put("user/model", **{"config.json": b"{}"})
    with pytest.raises(AdapterError, match=r"user/model holds no adapter: .* found config\.json"):
        daptune.load("hf:user/model")
    with pytest.raises(AdapterError, match="no repository 'user/nothing'"):
        daptune.load("hf:user/nothing")
    content = {file: (adapter / file).read_bytes() for file in FILES}
    hub.put("user/damaged", **(content | {FILES[1]: content[FILES[1]][:-1]}))
    with pytest.raises(AdapterError, match="its sha256 is not the one"):
        daptune.load("hf:user/damaged")


def test_a_damaged_adapter_is_not_published(hub: StandInHub, fitted: FewShotClassifier, tmp_path: Path) -> None:
    folder = fitted.save(tmp_path / "adapter")
    (folder / FILES[1]).write_bytes(b"other")
    with pytest.raises(AdapterError, match="is damaged"):
        push_adapter(folder, "hf:user/colours")
    assert hub.asked == [] and not hub.repositories


def test_the_verbs_take_names_of_the_hub(
    hub: StandInHub, adapter: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["push", str(adapter), "hf:user/colours", "--json"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out) == {"adapter": "hf:user/colours", "url": f"{hub.url}/user/colours"}
    assert "the backbone is recorded as a local path" in shown.err  # the made-up one is a file
    assert run(["pull", "hf:user/colours", "--json"]) == 0
    pulled = json.loads(capsys.readouterr().out)
    assert (pulled["adapter"], pulled["method"], pulled["classes"]) == ("hf:user/colours", "coop_vpt", 3)
    assert same(Path(pulled["folder"]), adapter)
    for words in (["predict"], ["eval"]):
        assert run([*words, "hf:user/colours", str(pictures)]) == 0, capsys.readouterr().err
    assert run(["show", "hf:user/colours", "--words", "0"]) == 0
    assert "coop_vpt" in capsys.readouterr().out
    assert run(["pull", "hf:user/nothing"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_card_says_what_a_reader_asks(fitted: FewShotClassifier, tmp_path: Path) -> None:
    def card(backbone: str) -> str:
        record = make_record(fitted.method_, fitted.backbone_, metrics={"held_out": {"dapt": {"accuracy": 0.5}}})
        record.backbone["name"] = backbone
        return model_card(record, title="DAPT", size=1000, parameters=10)

    tuned = card("ViT-B-16/openai")
    assert "base_model: timm/vit_base_patch16_clip_224.openai\nbase_model_relation: adapter\n" in tuned
    assert "pipeline_tag: image-classification" in tuned and "| held out dapt accuracy | 0.5 |" in tuned
    assert "from `timm/vit_base_patch16_clip_224.openai` on the Hub, under the licence stated there" in tuned
    assert "which of 3 classes" in tuned and f'daptune.load("{PLACE}")' in tuned
    for name in ("photo", "tiny"):
        embedded = card(name)
        assert "base_model" not in embedded and "comes with daptune, under the licence in its own card" in embedded
    assert "whose licence is unknown" in card(str(tmp_path / "gone.pt"))


def test_a_card_that_was_edited_is_published_as_it_is(
    hub: StandInHub, fitted: FewShotClassifier, tmp_path: Path
) -> None:
    folder = save_adapter(tmp_path / "adapter", fitted.method_, fitted.record_)
    own = (folder / "README.md").read_text("utf-8").replace("## Limits", "## My own words")
    (folder / "README.md").write_text(own, "utf-8")
    push_adapter(folder, "hf:user/colours@later")
    stored = hub.repositories["user/colours"]
    card = stored.commits[stored.branches["later"]]["README.md"].decode()
    assert card == own.replace(PLACE, "hf:user/colours@later") and read_record(folder).method == "coop_vpt"
