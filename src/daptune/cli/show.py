"""`daptune show`: what an adapter holds."""

from pathlib import Path
from typing import Any

from daptune.adapter.record import AdapterRecord, read_record
from daptune.adapter.sharing import find_adapter
from daptune.adapter.store import Adapter, load_adapter
from daptune.cli.console import emit_json, note, percent, print_pairs, print_table, shapes_text, size_text
from daptune.clip.backbone import load_backbone
from daptune.errors import BackboneError
from daptune.evaluate import nearest_words


def run(folder: Path, *, words: int, as_json: bool) -> int:
    """Do it; raises AdapterError. Without the backbone at hand only the nearest words are missing."""
    folder = find_adapter(folder)
    record = read_record(folder)
    adapter: Adapter | None = None
    try:
        backbone = load_backbone(record.backbone["name"], precision="fp32")
    except BackboneError as error:
        note(f"daptune: nearest words are left out: {error}")
    else:
        adapter = load_adapter(folder, backbone)
    nearest = nearest_words(adapter.method, words) if adapter is not None and words > 0 else []
    files = {path.name: path.stat().st_size for path in sorted(folder.iterdir()) if path.is_file()}
    if as_json:
        emit_json({"record": _content(record), "files": files, "nearest_words": nearest})
        return 0
    print_pairs(_about(record, files))
    held_out = record.metrics.get("held_out", {})
    if figures := [(name, row) for name, row in held_out.items() if isinstance(row, dict) and "accuracy" in row]:
        print_table(
            f"on {held_out.get('images')} held-out images",
            ("method", "accuracy", "macro-F1"),
            [(name, percent(row["accuracy"]), percent(row["macro_f1"])) for name, row in figures],
        )
    if nearest:
        cells = [
            (row["token"], ", ".join(f"{word['word']} ({word['distance']:.2f})" for word in row["words"]))
            for row in nearest
        ]
        print_table("words nearest to each learned text token (distance)", ("token", "words"), cells, left=2)
    return 0


def _about(record: AdapterRecord, files: dict[str, int]) -> dict[str, str]:
    options = ", ".join(f"{name}={value}" for name, value in record.method_config.items()) or "none"
    names = ", ".join(record.class_names[:10]) + (", ..." if len(record.class_names) > 10 else "")
    return {
        "method": record.method,
        "options": options,
        "backbone": f"{record.backbone['name']}, sha256 {record.backbone['sha256'][:12]}",
        "classes": f"{len(record.class_names)}: {names}",
        "learned": shapes_text(record.tensors) or "nothing",
        **_origin(record),
        "files": ", ".join(f"{name} {size_text(size)}" for name, size in files.items()),
        "made with": ", ".join(f"{name} {version}" for name, version in record.versions.items()),
    }


def _origin(record: AdapterRecord) -> dict[str, str]:
    if imported := record.data.get("imported_from"):
        return {"imported": f"{imported}, epoch {record.data.get('epoch') or 'unknown'}"}
    return {"shots": "all images" if record.shots is None else str(record.shots), "seed": str(record.seed)}


def _content(record: AdapterRecord) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__dataclass_fields__}
