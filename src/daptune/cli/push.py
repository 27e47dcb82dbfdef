"""`daptune push`: an adapter onto the Hugging Face Hub."""

from pathlib import Path

from daptune.adapter.sharing import push_adapter
from daptune.cli.console import emit_json, note, print_pairs


def run(adapter: Path, target: str, *, private: bool, revision: str | None, as_json: bool) -> int:
    """Do it; raises AdapterError."""
    done = push_adapter(adapter, target, private=private, revision=revision)
    backbone = done.record.backbone["name"]
    if Path(backbone).is_absolute() or backbone.startswith("."):
        note(f"daptune: warning: the backbone is named by a path of this machine, {backbone}; others need --backbone")
    if as_json:
        emit_json({"adapter": done.name, "url": done.url})
        return 0
    print_pairs({"published": done.url, "load it": f'daptune.load("{done.name}")'})
    return 0
