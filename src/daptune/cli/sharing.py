"""`daptune push` and `daptune pull`: adapters and backbones to and from the Hugging Face Hub."""

from dataclasses import replace
from pathlib import Path

from daptune.cli.app import command
from daptune.cli.console import emit_json, note, print_pairs, size_text
from daptune.cli.options import Adapter, Json


@command
def push(
    adapter: Adapter, target: str, /, *, private: bool = False, revision: str | None = None, json: Json = False
) -> int:
    """Publish an adapter on the Hugging Face Hub, with its model card; log in first with `hf auth login`.

    Parameters
    ----------
    target
        `hf:user/name`; created if missing.
    private
        Create a private repository.
    revision
        Branch to write to; created if missing.
    """
    from daptune.adapter.sharing import push_adapter

    done = push_adapter(adapter, target, private=private, revision=revision)
    backbone = done.record.backbone["name"]
    if Path(backbone).is_absolute() or backbone.startswith("."):
        note(f"daptune: warning: the backbone is recorded as a local path, {backbone}; other users need --backbone")
    if json:
        emit_json({"adapter": done.name, "url": done.url})
    else:
        print_pairs({"published": done.url, "load it": f'daptune.load("{done.name}")'})
    return 0


@command
def pull(backbone: str, /, *, revision: str | None = None, json: Json = False) -> int:
    """Download a backbone, or an adapter with its backbone, into the local cache for offline use.

    Parameters
    ----------
    backbone
        A name such as `ViT-B-16/openai`, or `hf:org/repo` of a backbone or an adapter.
    revision
        Commit, tag or branch on the Hub.
    """
    from daptune.adapter.sharing import fetch_adapter, holds_adapter, on_hub
    from daptune.adapter.store import load_adapter
    from daptune.clip.backbone import load_backbone
    from daptune.clip.hub import pull as fetch
    from daptune.clip.hub import resolve

    # load it once, so that a damaged or unusable download fails now
    source = on_hub(backbone)
    if source is not None and holds_adapter(source := replace(source, revision=revision or source.revision)):
        path = fetch_adapter(source)
        record = load_adapter(path, allow_download=True).record  # asked for: an adapter with its backbone
        named, size = record.backbone["name"], _size(path)
        done = {"adapter": source.name, "folder": str(path), "bytes": size, "method": record.method, "backbone": named}
        done["classes"] = len(record.class_names)
        holds = f"{record.method} for {done['classes']} classes, on {named}"
        shown = {"adapter": source.name, "folder": path, "size": size_text(size), "holds": holds}
    else:
        path = fetch(backbone, revision=revision)
        loaded = load_backbone(backbone, revision=revision)
        size = _size(path)
        done = {"backbone": loaded.name, "folder": str(path), "bytes": size, "sha256": loaded.sha256}
        shown = {"backbone": loaded.name, "folder": path, "size": size_text(size), "sha256": loaded.sha256}
        if licence := resolve(backbone).licence:
            done["licence"] = shown["licence"] = licence
    if json:
        emit_json(done)
    else:
        print_pairs(shown)
    return 0


def _size(path: Path) -> int:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)
