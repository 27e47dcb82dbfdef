"""Every reader of files from outside, with small valid files to damage.

A `Case` writes its valid file into a folder and names it; `read` reads that folder as a user's command would.
"""

import hashlib
import io
import json
import pickle
import shutil
import sys
import tarfile
import types
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import torch
from PIL import Image
from pyarrow import parquet

from daptune.adapter.record import read_record
from daptune.adapter.store import load_adapter
from daptune.bench.plan import find_plan
from daptune.bench.results import read_results
from daptune.clip.backbone import Backbone
from daptune.clip.checkpoints import read_checkpoint
from daptune.clip.checkpoints.dassl import read_training_state
from daptune.clip.tokenizer import Tokenizer
from daptune.data.benchmarks.pickles import read_pickle
from daptune.data.benchmarks.unpack import extract
from daptune.data.images import decode
from daptune.data.name_lists import read_names
from daptune.data.sources import read_source
from daptune.data.weights import read_class_weights
from daptune.predict.inputs import items
from daptune.train.checkpoint import read_checkpoint as read_run
from daptune.train.history import History
from tests.clip.made_up import SMALL, make_tensors, write_huggingface, write_openclip
from tests.report.made_up import lines, write_run

TINY = replace(
    SMALL, vision_width=64, vision_layers=1, vision_heads=1, vision_mlp=64, vocab_size=300, text_layers=1, text_mlp=64
)
ADAPTERS = Path(__file__).parents[1] / "adapter" / "data"


@dataclass(frozen=True)
class Case:
    """A reader: `file` of the folder that `make` fills is what is damaged, then `read` gets the folder."""

    name: str
    file: str
    make: Callable[[Path], object]
    read: Callable[[Path], object]
    mend: Callable[[Path], object] = lambda folder: None
    """What an attacker does after the change, so that it gets further: a checksum made anew."""
    share: float = 1.0
    """How many of the inputs, of an equal share."""


def cases(backbone: Backbone) -> list[Case]:
    """All readers; adapters are read on this backbone, which is `tiny`."""

    def adapter(folder: Path) -> object:
        record = read_record(folder)
        return record.settings, record.ensemble_text, load_adapter(folder, backbone)

    def sealed(folder: Path) -> None:
        content = json.loads((folder / "adapter.json").read_text("utf-8"))
        content["tensors_sha256"] = hashlib.sha256((folder / "adapter.safetensors").read_bytes()).hexdigest()
        (folder / "adapter.json").write_text(json.dumps(content))

    def copied(name: str) -> Callable[[Path], object]:
        return lambda folder: shutil.copytree(ADAPTERS / name, folder, dirs_exist_ok=True)

    def checkpoint(folder: Path) -> object:
        return read_checkpoint(folder)

    tensors = make_tensors(TINY)
    found = [
        Case("adapter.json", "adapter.json", copied("dapt"), adapter, share=4),
        Case("adapter.json, tip_adapter", "adapter.json", copied("tip_adapter"), adapter),
        Case("adapter.safetensors", "adapter.safetensors", copied("dapt"), adapter, sealed, share=2),
        Case("config.json", "config.json", lambda f: write_huggingface(f, tensors, TINY), checkpoint),
        Case("open_clip_config.json", "open_clip_config.json", lambda f: write_openclip(f, tensors, TINY), checkpoint),
        Case("safetensors", "model.safetensors", lambda f: write_huggingface(f, tensors, TINY), checkpoint),
        Case("shards", "model.safetensors.index.json", lambda f: write_huggingface(f, tensors, TINY, 2), checkpoint),
        Case("pickled .pt", "model.pt", lambda f: torch.save(tensors, f / "model.pt"), checkpoint, share=2),
        Case("pickle in a .pt", "data.pkl", lambda f: _unzipped(f, tensors), checkpoint, _zipped, share=4),
        Case("older .pt", "model.pt", lambda f: _older(f, tensors), checkpoint, share=2),
        Case("official checkpoint", "a.pth.tar", _official, lambda f: read_training_state(f / "a.pth.tar", bool)),
        Case("tokenizer.json", "tokenizer.json", _tokenizer, lambda f: Tokenizer(f / "tokenizer.json")),
        Case("run", "checkpoint.safetensors", copied("run"), read_run),
        Case("history", "history.jsonl", copied("run"), History.read),
        Case("results", "results.jsonl", lambda f: write_run(f, lines()[:3]), read_results),
        Case("plan", "plan.toml", _plan, lambda f: find_plan(str(f / "plan.toml")).jobs()),
        Case("csv", "rows.csv", _csv, lambda f: _both(f / "rows.csv")),
        Case("parquet", "rows.parquet", _parquet, lambda f: _both(f / "rows.parquet"), share=2),
        Case("split", "split_zhou_x.json", _split, lambda f: read_source(f / "split_zhou_x.json")),
        Case("names", "names.json", _names, lambda f: read_names(f / "names.json")),
        Case("weights", "weights.json", _weights, lambda f: read_class_weights(f / "weights.json")),
        Case("few-shot pickle", "shot_1-seed_1.pkl", _fewshot, lambda f: read_pickle(f / "shot_1-seed_1.pkl"), share=2),
    ]
    for kind in ("tar", "tar.gz", "tar.xz", "tar.bz2", "zip"):
        found.append(Case(f"archive {kind}", f"a.{kind}", partial(_archive, kind=kind), partial(_unpack, kind=kind)))
    for kind in ("jpg", "png", "webp", "gif", "tiff", "bmp"):
        found.append(Case(f"image {kind}", f"a.{kind}", partial(_image, kind=kind), partial(_picture, kind=kind)))
    return found


def _picture(folder: Path, kind: str) -> object:
    return decode(folder / f"a.{kind}")


def _unzipped(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    torch.save(tensors, folder / "model.pt")
    with zipfile.ZipFile(folder / "model.pt") as archive:
        (folder / "data.pkl").write_bytes(archive.read("model/data.pkl"))


def _zipped(folder: Path) -> None:
    """The changed pickle in a sound zip."""
    with zipfile.ZipFile(folder / "model.pt") as archive:
        content = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(folder / "model.pt", "w") as archive:
        for name, data in (content | {"model/data.pkl": (folder / "data.pkl").read_bytes()}).items():
            archive.writestr(name, data)


def _older(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    torch.save(tensors, folder / "model.pt", _use_new_zipfile_serialization=False)


def _official(folder: Path) -> None:
    state = {"prompt_learner.ctx": torch.zeros(4, 128), "epoch": 3}
    torch.save({"state_dict": state, "epoch": 3, "scheduler": np.float64(1)}, folder / "a.pth.tar")


def _tokenizer(folder: Path) -> None:
    words = ["a", "b", "a</w>", "b</w>", "ab</w>", "<|startoftext|>", "<|endoftext|>"]
    model = {"type": "BPE", "end_of_word_suffix": "</w>", "merges": ["a b</w>"]}
    model["vocab"] = {word: place for place, word in enumerate(words)}
    added = [{"content": words[-1], "id": 6}]
    (folder / "tokenizer.json").write_text(json.dumps({"model": model, "added_tokens": added}))


def _plan(folder: Path) -> None:
    (folder / "plan.toml").write_text(
        'name = "mine"\nbackbone = "tiny"\nmethods = ["coop", {method = "dapt", options = {intra_weight = 0.0}}]\n'
        'datasets = ["demo"]\nshots = [1, 4]\nseeds = [1]\n[train]\nlr = 0.01\nepochs = 2\n'
    )


def _pictures(folder: Path) -> None:
    for name in ("a.png", "b.png"):
        Image.new("RGB", (8, 8), (10, 200, 30)).save(folder / name)


def _csv(folder: Path) -> None:
    _pictures(folder)
    (folder / "rows.csv").write_text("path,label,split\na.png,cat,train\nb.png,dog,train\n" * 3)


def _parquet(folder: Path) -> None:
    _pictures(folder)
    table = pyarrow.table({"path": ["a.png", "b.png"] * 9, "label": [0, 1] * 9})
    names = {"info": {"features": {"label": {"names": ["cat", "dog"]}}}}
    table = table.replace_schema_metadata({"huggingface": json.dumps(names)})
    parquet.write_table(table, folder / "rows.parquet")


def _both(path: Path) -> object:
    """A table as `fit` and as `predict` read it."""
    return read_source(path), len(list(items([str(path)])))


def _split(folder: Path) -> None:
    _pictures(folder)
    rows = {"train": [["a.png", 0, "cat"], ["b.png", 1, "dog"]], "val": [], "test": [["a.png", 0, "cat"]]}
    (folder / "split_zhou_x.json").write_text(json.dumps(rows))


def _names(folder: Path) -> None:
    (folder / "names.json").write_text(json.dumps({"1": "pink primrose", "2": ["a rose", "rose"]}))


def _weights(folder: Path) -> None:
    (folder / "weights.json").write_text(json.dumps({"cat": 1, "dog": 2.5}))


def _fewshot(folder: Path) -> None:
    _pictures(folder)
    module = types.ModuleType("dassl")
    datum = type("Datum", (), {"__module__": "dassl"})
    module.Datum = datum  # type: ignore[attr-defined]
    rows: list[Any] = []
    for file, label, name in (("a.png", 0, "cat"), ("b.png", 1, "dog")):
        row = datum()
        path = f"/x/{folder.parent.name}/{file}"
        row.__dict__ |= {"_impath": path, "_label": label, "_domain": 0, "_classname": name}
        rows.append(row)
    sys.modules["dassl"] = module
    try:
        (folder / "shot_1-seed_1.pkl").write_bytes(pickle.dumps({"train": rows, "val": rows[:1]}, protocol=4))
    finally:
        del sys.modules["dassl"]


def _archive(folder: Path, kind: str) -> None:
    path = folder / f"a.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("d/x.txt", b"hello " * 50)
            archive.writestr("d/y.txt", b"more")
        return
    mode = "w:" + kind.partition(".")[2]
    with tarfile.open(path, mode, format=tarfile.PAX_FORMAT) as archive:  # type: ignore[call-overload]
        for name in ("x.txt", "y" * 150 + ".txt"):
            about = tarfile.TarInfo(f"d/{name}")
            about.size = 300
            archive.addfile(about, io.BytesIO(b"hello " * 50))


def _unpack(folder: Path, kind: str) -> object:
    shutil.rmtree(folder / "out", ignore_errors=True)
    return extract(folder / f"a.{kind}", folder / "out")


def _image(folder: Path, kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (24, 20, 3), dtype=np.uint8)
    options = {"jpg": {"progressive": True}, "tiff": {"compression": "tiff_lzw"}}.get(kind, {})
    Image.fromarray(noise).save(folder / f"a.{kind}", **options)
