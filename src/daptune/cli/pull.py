"""`daptune pull`: a backbone, or an adapter with its backbone, into the local cache."""

from dataclasses import replace

from daptune.adapter.sharing import fetch_adapter, holds_adapter, on_hub
from daptune.adapter.store import load_adapter
from daptune.cli.console import emit_json, print_pairs, size_text
from daptune.clip.backbone import load_backbone
from daptune.clip.hub import Source, pull


def run(name: str, *, revision: str | None, as_json: bool) -> int:
    """Fetch it, and load it once so that a damaged or unusable one is told now. Raises BackboneError, AdapterError."""
    source = on_hub(name)
    if source is not None:
        source = replace(source, revision=revision or source.revision)
        if holds_adapter(source):
            return _adapter(source, as_json)
    path = pull(name, revision=revision)
    backbone = load_backbone(name, revision=revision)
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    size = sum(file.stat().st_size for file in files)
    if as_json:
        emit_json({"backbone": backbone.name, "folder": str(path), "bytes": size, "sha256": backbone.sha256})
        return 0
    print_pairs({"backbone": backbone.name, "folder": path, "size": size_text(size), "sha256": backbone.sha256})
    return 0


def _adapter(source: Source, as_json: bool) -> int:
    folder = fetch_adapter(source)
    record = load_adapter(folder).record
    size = sum(file.stat().st_size for file in folder.iterdir())
    name, classes = record.backbone["name"], len(record.class_names)
    if as_json:
        about = {"method": record.method, "backbone": name, "classes": classes}
        emit_json({"adapter": source.name, "folder": str(folder), "bytes": size, **about})
        return 0
    print_pairs(
        {
            "adapter": source.name,
            "folder": folder,
            "size": size_text(size),
            "holds": f"{record.method} for {classes} classes, on {name}",
        }
    )
    return 0
