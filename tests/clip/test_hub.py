"""Names become folders: against a stand-in Hub on the loopback interface, a cache, and no network at all."""

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file
from torch import Tensor

from daptune.clip.checkpoints import read_checkpoint
from daptune.clip.hub import EMBEDDED, choose, hub_models, locate, pull, resolve
from daptune.clip.preprocess import Preprocess
from daptune.errors import BackboneError

from . import made_up

COMMITS = {"main": "a" * 40, "v1": "b" * 40}


class StandIn(BaseHTTPRequestHandler):
    """The three routes that huggingface_hub uses: information on a revision, and HEAD and GET of a file."""

    root: Path
    asked: list[str]

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, body: bool) -> None:
        self.asked.append(self.path)
        if match := re.fullmatch(r"/api/models/(org/[\w.-]+)(?:/revision/(\w+))?(?:\?.*)?", self.path):
            repo, revision = match[1], match[2] or "main"
            folder = self.root / repo
            if "gated" in repo:
                return self.send(403, b"{}", {"X-Error-Code": "GatedRepo"}, body)
            if not folder.is_dir():
                return self.send(404, b"{}", {"X-Error-Code": "RepoNotFound"}, body)
            commit = COMMITS.get(revision, revision if revision in COMMITS.values() else None)
            if commit is None:
                return self.send(404, b"{}", {"X-Error-Code": "RevisionNotFound"}, body)
            files = [{"rfilename": file.name} for file in sorted(folder.iterdir())]
            return self.send(200, json.dumps({"id": repo, "sha": commit, "siblings": files}).encode(), {}, body)
        if match := re.fullmatch(r"/(org/[\w.-]+)/resolve/(\w+)/([\w.-]+)", self.path):
            file = self.root / match[1] / match[3]
            commit = COMMITS.get(match[2], match[2])
            headers = {"ETag": f'"{match[3]}-{file.stat().st_size}"', "X-Repo-Commit": commit}
            return self.send(200, file.read_bytes(), headers, body)
        return self.send(404, b"{}", {}, body)

    def send(self, status: int, content: bytes, headers: dict[str, str], body: bool) -> None:
        self.send_response(status)
        for key, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(content)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, list[str]]]:
    """The stand-in's folder of repositories and the list of what was asked of it."""
    handler = type("Handler", (StandIn,), {"root": tmp_path / "hub", "asked": []})
    (tmp_path / "hub" / "org").mkdir(parents=True)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # read from the environment by whichever test came first
    yield tmp_path / "hub", handler.asked
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    return made_up.make_tensors()


def test_downloads_one_layout_and_then_asks_no_more(hub, tmp_path: Path, tensors, monkeypatch) -> None:
    root, asked = hub
    made_up.write_openclip(root / "org" / "clip", tensors)
    made_up.write_openclip(root / "org" / "clip", tensors, pickled=True)
    made_up.write_huggingface(root / "org" / "clip", tensors)
    cache = tmp_path / "cache"
    folder = locate("hf:org/clip", cache_dir=cache)
    assert sorted(file.name for file in folder.iterdir()) == ["open_clip_config.json", "open_clip_model.safetensors"]
    assert folder.name == COMMITS["main"]
    asked.clear()
    assert locate("hf:org/clip", cache_dir=cache) == folder
    assert asked == []
    assert pull("hf:org/clip", cache_dir=cache) == folder
    assert asked != []
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert locate("hf:org/clip", cache_dir=cache) == folder
    with pytest.raises(BackboneError, match="HF_HUB_OFFLINE is set"):
        pull("hf:org/clip", cache_dir=cache)


def test_shards_and_what_lies_beside_them(hub, tmp_path: Path, tensors) -> None:
    root, _ = hub
    folder = made_up.write_huggingface(root / "org" / "large", tensors, shards=3)
    for name in ("preprocessor_config.json", "tokenizer.json", "README.md", "pytorch_model.bin", "flax_model.msgpack"):
        (folder / name).write_text("{}")
    found = locate("hf:org/large", cache_dir=tmp_path / "cache")
    assert sorted(file.name for file in found.iterdir()) == [
        "config.json",
        *(f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)),
        "model.safetensors.index.json",
        "preprocessor_config.json",
        "tokenizer.json",
    ]
    (found / "model-00002-of-00003.safetensors").unlink()
    assert locate("hf:org/large", cache_dir=tmp_path / "cache") == found
    assert (found / "model-00002-of-00003.safetensors").is_file()  # fetched again


def test_revisions(hub, tmp_path: Path, tensors) -> None:
    root, _ = hub
    made_up.write_openclip(root / "org" / "clip", tensors)
    cache = tmp_path / "cache"
    assert locate("hf:org/clip@v1", cache_dir=cache).name == COMMITS["v1"]
    assert locate("hf:org/clip", revision="v1", cache_dir=cache).name == COMMITS["v1"]
    assert locate("hf:org/clip", revision=COMMITS["main"], cache_dir=cache).name == COMMITS["main"]
    with pytest.raises(BackboneError, match="no revision 'v9'"):
        locate("hf:org/clip@v9", cache_dir=cache)
    with pytest.raises(BackboneError, match="name different revisions"):
        locate("hf:org/clip@v1", revision="main", cache_dir=cache)


def test_repositories_without_a_clip(hub, tmp_path: Path) -> None:
    root, _ = hub
    (root / "org" / "text").mkdir()
    (root / "org" / "text" / "README.md").write_text("")
    with pytest.raises(BackboneError, match=r"hf:org/text has no readable CLIP.*found README\.md"):
        locate("hf:org/text", cache_dir=tmp_path)
    with pytest.raises(BackboneError, match="no repository 'org/nothing'"):
        locate("hf:org/nothing", cache_dir=tmp_path)
    with pytest.raises(BackboneError, match="requires accepting its terms"):
        locate("hf:org/gated", cache_dir=tmp_path)


def test_no_network(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with pytest.raises(
        BackboneError,
        match=r"with network, type `daptune pull ViT-B-16/openai`, and copy models--\S+ of its cache into /",
    ) as caught:
        locate("ViT-B-16/openai", cache_dir=tmp_path)
    assert "\n" not in str(caught.value)


def test_names() -> None:
    for name in ("photo", "tiny"):
        assert resolve(name).path == EMBEDDED[name] and (EMBEDDED[name] / "config.json").is_file()
    source = resolve("ViT-B-16/openai")
    assert (source.repo, source.activation) == ("timm/vit_base_patch16_clip_224.openai", "quick_gelu")
    assert resolve("ViT-B-16-quickgelu/openai") == source
    assert resolve("ViT-B/16") == source
    assert resolve("ViT-L/14@336px").name == "ViT-L-14-336/openai"
    assert resolve("ViT-H-14/laion2b_s32b_b79k").activation is None
    assert resolve("hf:laion/CLIP-ViT-B-16-laion2B-s34B-b88K@main").revision == "main"


def test_the_table_is_well_formed() -> None:
    for name, entry in hub_models().items():
        assert re.fullmatch(r"(ViT-|RN|PE-Core-|EVA02-)[\w-]+/\w+", name)
        assert re.fullmatch(r"[\w-]+/[\w.-]+", entry["repo"])
        assert entry.get("activation", "quick_gelu") == "quick_gelu"
        Preprocess.from_dict(entry.get("preprocess", {}))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ViT-B-16/opneai", "Did you mean 'ViT-B-16/openai'"),
        ("tinny", "Did you mean 'tiny'"),
        ("ViT-L-14", "Tags of ViT-L-14: ViT-L-14/openai, "),
        ("no/such/folder.pt", "Give a name such as"),
        ("", "Give a name such as"),
        ("hf:justone", "no backbone is called 'hf:justone'"),
        ("hf:../../x", "no backbone is called"),
        ("models/eva02.pt", "no backbone is called"),
        ("./siglip", "no backbone is called"),
    ],
)
def test_unknown_names(name: str, words: str, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BackboneError) as caught:
        resolve(name)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_paths(tmp_path: Path) -> None:
    assert locate(tmp_path) == tmp_path
    assert pull(str(tmp_path)) == tmp_path


def test_safetensors_come_before_pickles() -> None:
    def chosen(*files: str, is_clip: bool = True) -> list[str]:
        return choose(files, "x", lambda: is_clip)

    theirs, ours = ["config.json", "pytorch_model.bin"], ["open_clip_config.json", "open_clip_pytorch_model.bin"]
    assert chosen(*theirs, "model.safetensors", "README.md") == ["config.json", "model.safetensors"]
    assert chosen(*theirs) == theirs and chosen(*theirs, is_clip=False) == theirs  # refused with a sentence when read
    assert chosen(*theirs, *ours) == ours
    assert chosen(*theirs, *ours, "model.safetensors") == ["config.json", "model.safetensors"]
    assert chosen(*theirs, *ours, "model.safetensors", is_clip=False) == ours
    both = ("model.safetensors", "open_clip_model.safetensors")
    assert chosen(*theirs, *ours, *both) == ["open_clip_config.json", "open_clip_model.safetensors"]
    shards = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    index = "model.safetensors.index.json"
    assert chosen(*theirs, *ours, *shards, index) == ["config.json", index, *shards]


def test_safetensors_of_transformers_come_before_a_pickle_of_open_clip(hub, tmp_path: Path, tensors) -> None:
    root, asked = hub
    repo = made_up.write_openclip(root / "org" / "both", made_up.make_tensors(seed=1), pickled=True)
    made_up.write_huggingface(repo, tensors)
    cache = tmp_path / "cache"
    folder = locate("hf:org/both", cache_dir=cache)
    assert sorted(file.name for file in folder.iterdir()) == ["config.json", "model.safetensors"]
    for place in (folder, repo):
        read = read_checkpoint(place)
        assert torch.equal(read.tensors["visual.proj"], tensors["visual.proj"])
        assert [file.name for file in read.files] == ["model.safetensors"]
    asked.clear()
    assert locate("hf:org/both", cache_dir=cache) == folder and asked == []


@pytest.mark.parametrize("config", ['{"architecture": "vit_base_patch16_clip_224"}', "damaged"])
def test_timm_files_beside_a_pickle_of_open_clip_are_passed_over(hub, tmp_path: Path, tensors, config: str) -> None:
    root, asked = hub
    repo = made_up.write_openclip(root / "org" / "timm", tensors, pickled=True)
    (repo / "config.json").write_text(config)
    save_file({"blocks.0.norm1.weight": torch.ones(3)}, repo / "model.safetensors")
    cache = tmp_path / "cache"
    folder = locate("hf:org/timm", cache_dir=cache)
    assert [file.name for file in read_checkpoint(folder).files] == ["open_clip_pytorch_model.bin"]
    assert [file.name for file in read_checkpoint(repo).files] == ["open_clip_pytorch_model.bin"]
    assert not (folder / "model.safetensors").exists()
    asked.clear()
    assert locate("hf:org/timm", cache_dir=cache) == folder and asked == []


def test_what_is_cached_stays_in_use(hub, tmp_path: Path, tensors) -> None:
    root, asked = hub
    repo = made_up.write_openclip(root / "org" / "old", tensors, pickled=True)
    cache = tmp_path / "cache"
    folder = locate("hf:org/old", cache_dir=cache)
    made_up.write_huggingface(repo, tensors)
    asked.clear()
    assert locate("hf:org/old", cache_dir=cache) == folder and asked == []
    assert pull("hf:org/old", cache_dir=cache) == folder
    assert [file.name for file in read_checkpoint(folder).files] == ["model.safetensors"]


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("siglip2-base-patch16-naflex", "NaFlex"),
        ("PE-Lang-L14-448/meta", "Perception Encoder"),
        ("PE-Core-H-16/meta", "PE-Core"),
        ("EVA02-H-14/merged2b_s8b_b131k", "EVA02-CLIP"),
        ("EVA02-E-14-plus/laion2b_s9b_b144k", "EVA02-CLIP E/14"),
        ("EVA01-g-14-plus/merged2b_s11b_b114k", "EVA01-CLIP"),
        ("QuanSun/EVA-CLIP", "BAAI's own layout"),
        ("MobileCLIP2-S0/dfndr2b", "MobileCLIP"),
        ("xlm-roberta-base-ViT-B-32/laion5b_s13b_b90k", "XLM-RoBERTa"),
        ("nllb-clip-base-siglip/v1", "NLLB"),
        ("coca_ViT-B-32/laion2b_s13b_b90k", "CoCa"),
        ("ViT-H-14-CLIPA/datacomp1b", "CLIPA"),
        ("convnext_base/laion400m_s13b_b51k", "ConvNeXt"),
        ("ViTamin-L/datacomp1b", "ViTamin"),
        ("ViT-B-16-SigLIP3/webli", "SigLIP"),
        ("ViT-L-14-worldwide/metaclip2_worldwide", "MetaCLIP 2"),
    ],
)
def test_names_of_other_families_are_known(name: str, word: str) -> None:
    """As open_clip's pretrained.py has them; what is to be taken instead is there."""
    with pytest.raises(BackboneError, match=word) as caught:
        resolve(name)
    message = str(caught.value)
    assert "no backbone is called" not in message and "\n" not in message
    instead = re.findall(
        r"(?:ViT|RN|PE|EVA02)[\w-]+/\w+", message.partition("take " if "take " in message else "such are ")[2]
    )
    assert instead and all(resolve(other).repo for other in instead)


def test_weights_of_a_family_that_is_not_served_are_not_fetched(hub, tmp_path: Path, tensors) -> None:
    root, asked = hub
    repo = made_up.write_openclip(root / "org" / "eva", tensors)
    config = json.loads((repo / "open_clip_config.json").read_text())
    config["model_cfg"]["vision_cfg"]["timm_model_name"] = "eva_giant_patch14_224"
    (repo / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(BackboneError, match=r"hf:org/eva is an EVA01-CLIP, .* which is not served"):
        pull("hf:org/eva", cache_dir=tmp_path / "cache")
    assert not [path for path in asked if "model.safetensors" in path]
    (root / "org" / "PE-Lang-L14-448").mkdir()
    (root / "org" / "PE-Lang-L14-448" / "PE-Lang-L14-448.pt").write_bytes(b"")
    with pytest.raises(BackboneError, match="is a Perception Encoder without a text tower"):
        pull("hf:org/PE-Lang-L14-448", cache_dir=tmp_path / "cache")
