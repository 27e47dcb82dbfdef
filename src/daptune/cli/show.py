"""`daptune show`: what an adapter holds."""

from pathlib import Path
from typing import TYPE_CHECKING

from daptune.cli.app import command
from daptune.cli.console import emit_json, note, percent, print_pairs, print_table, shapes_text, size_text
from daptune.cli.options import Adapter, AllowDownload, Json
from daptune.errors import BackboneError
from daptune.text import printable

if TYPE_CHECKING:
    from daptune.adapter.folder import Listed
    from daptune.adapter.record import AdapterRecord


_FIGURES = {"accuracy": "accuracy", "macro_f1": "macro-F1"}
_SEVERAL = {"mean_average_precision": "mAP", "macro_f1": "macro-F1", "micro_f1": "micro-F1"}


@command
def show(adapter: Adapter, /, *, words: int = 3, allow_download: AllowDownload = False, json: Json = False) -> int:
    """Show what an adapter holds: method, classes, figures, size, and the words nearest to its learned context.

    Of a folder of adapters, list them; one that cannot be read is listed with the reason.

    Parameters
    ----------
    words
        Vocabulary words to name for each learned text token; 0 for none.
    """
    from daptune.adapter.folder import adapters_in
    from daptune.adapter.record import JSON_FILE, read_record
    from daptune.adapter.sharing import find_adapter
    from daptune.adapter.store import load_adapter, own_backbone
    from daptune.evaluate import nearest_words

    folder = find_adapter(adapter)
    if folder.is_dir() and not (folder / JSON_FILE).is_file() and (listed := adapters_in(folder)):
        return _list(folder, listed, json)
    record = read_record(folder)
    nearest = []
    try:
        backbone = own_backbone(record, precision="fp32", allow_download=allow_download)
    except BackboneError as error:
        note(f"daptune: nearest words are left out: {error}")
    else:
        method = load_adapter(folder, backbone).method  # also without words: it checks the tensors
        nearest = nearest_words(method, words) if words > 0 else []
    files = {path.name: path.stat().st_size for path in sorted(folder.iterdir()) if path.is_file()}
    if json:
        content = {name: getattr(record, name) for name in record.__dataclass_fields__}
        emit_json({"record": content, "files": files, "nearest_words": nearest})
        return 0
    print_pairs(_about(record, files))
    if record.names is not None:
        rows = [(label, ", ".join(record.names[label])) for label in record.class_names]
        print_table("names in the prompts", ("class", "names"), rows, left=2)
    held_out = record.metrics.get("held_out", {})
    shown = _SEVERAL if record.multi_label else _FIGURES
    if figures := [
        (name, *(percent(row[figure]) for figure in shown))
        for name, row in held_out.items()
        if isinstance(row, dict) and shown.keys() <= row.keys()
    ]:
        print_table(f"on {held_out.get('images')} held-out images", ("method", *shown.values()), figures)
    if nearest:
        cells = [
            (row["token"], ", ".join(f"{word['word']} ({word['distance']:.2f})" for word in row["words"]))
            for row in nearest
        ]
        print_table("words nearest to each learned text token (distance)", ("token", "words"), cells, left=2)
    return 0


def _thresholds(record: "AdapterRecord") -> str:
    """The probability from which an image shows each class."""
    pairs = list(zip(record.class_names, record.thresholds or (), strict=True))
    few = ", ".join(f"{printable(name, 60)} {level:.2f}" for name, level in pairs[:10])
    return few + (", ..." if len(pairs) > 10 else "")


def _list(folder: Path, listed: "list[Listed]", json: bool) -> int:
    if json:
        rows = [
            {
                "name": each.name,
                "method": each.record and each.record.method,
                "classes": each.record and list(each.record.class_names),
                "fault": each.fault or None,
            }
            for each in listed
        ]
        emit_json({"folder": str(folder), "adapters": rows})
        return 0
    cells = [
        (each.name, each.record.method, f"{len(each.record.class_names)} classes on {each.record.backbone['name']}")
        if each.record
        else (each.name, "broken", each.fault)
        for each in listed
    ]
    print_table(f"adapters in {folder}", ("name", "method", ""), cells, left=3)
    return 0


def _about(record: "AdapterRecord", files: dict[str, int]) -> dict[str, str]:
    from daptune.adapter.card import shots_text

    options = ", ".join(f"{name}={printable(value, 100)}" for name, value in record.method_config.items()) or "none"
    names = ", ".join(printable(name, 60) for name in record.class_names[:10]) + (
        ", ..." if len(record.class_names) > 10 else ""
    )
    if imported := record.data.get("imported_from"):
        origin = {"imported": f"{imported}, epoch {record.data.get('epoch') or 'unknown'}"}
    else:
        origin = {"shots": shots_text(record), "seed": str(record.seed)}
        if (weights := record.data.get("class_weight")) is not None:
            origin["class weights"] = weights if isinstance(weights, str) else str(weights)
    if isinstance(others := record.data.get("unlabelled"), dict):
        origin["unlabelled"] = f"{others.get('images')} images, with gamma {others.get('gamma')}"
    chosen = record.data.get("chosen")
    if isinstance(chosen, dict):
        origin["chosen"] = f"by cross-validation: {chosen.get('why')}"
    learned = {name: shape for name, shape in record.tensors.items() if not name.startswith("ensemble.")}
    return {
        "method": record.method,
        "options": options,
        "backbone": f"{record.backbone['name']}, sha256 {record.backbone['sha256'][:12]}",
        "classes": f"{len(record.class_names)}: {names}",
        "ensemble": record.ensemble_text,
        "temperature": f"{record.temperature:g}",
        **({} if record.thresholds is None else {"thresholds": _thresholds(record)}),
        "learned": shapes_text(learned) or "nothing",
        **origin,
        "files": ", ".join(f"{name} {size_text(size)}" for name, size in files.items()),
        "made with": ", ".join(f"{name} {version}" for name, version in record.versions.items()),
    }
