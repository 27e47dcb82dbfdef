"""The adapter's `README.md`: what a person, or a model hub, wants to know before using it."""

from typing import Any

from daptune.adapter.record import AdapterRecord


def model_card(record: AdapterRecord, *, title: str, size: int, parameters: int) -> str:
    """Markdown with the metadata header that model hubs read.

    `title` is the method's full name, `size` the bytes of the tensor file, `parameters` the count of numbers.
    """
    names = ", ".join(record.class_names[:20]) + (" ..." if len(record.class_names) > 20 else "")
    imported = record.data.get("imported_from")
    made = "Learned with official code and imported into" if imported else "Learned with"
    origin = [f"| images a class | {'all' if record.shots is None else record.shots} |", f"| seed | {record.seed} |"]
    if imported:
        origin = [f"| imported from | {_cell(str(imported))}, epoch {record.data.get('epoch') or 'unknown'} |"]
    lines = [
        "---",
        "library_name: daptune",
        "pipeline_tag: image-classification",
        "tags: [clip, prompt-tuning, few-shot, " + record.method + "]",
        "---",
        "",
        f"# {title} for {len(record.class_names)} classes",
        "",
        f"{made} daptune (`pip install daptune`): {parameters:,} numbers in {size / 1000:.0f} kB "
        f"that adapt the frozen `{record.backbone['name']}`.",
        "",
        "| | |",
        "|---|---|",
        f"| method | {record.method} |",
        f"| backbone | {record.backbone['name']} (sha256 {record.backbone['sha256'][:16]}...) |",
        f"| classes | {_cell(names)} |",
        *origin,
        *(f"| {_cell(name)} | {_cell(_number(value))} |" for name, value in _flat(record.metrics)),
        "",
        "## Use",
        "",
        "```bash",
        "daptune predict PATH_OF_THIS_FOLDER pictures/",
        "```",
        "",
        "```python",
        "import daptune",
        "",
        'classifier = daptune.load("PATH_OF_THIS_FOLDER")',
        'classifier.predict(["picture.jpg"])',
        "```",
        "",
        "## Limits",
        "",
        "It answers with one of its classes for every image, also for one that shows none of them. What the frozen "
        "backbone does not know, a prompt cannot teach it; accuracy on your images may differ from the figures above.",
        "",
    ]
    return "\n".join(lines)


def _flat(metrics: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested metrics as `outer inner` rows; lists and per-class tables stay in adapter.json."""
    rows: list[tuple[str, Any]] = []
    for name, value in metrics.items():
        label = f"{prefix}{name}".replace("_", " ")
        if isinstance(value, dict):
            if name != "per_class":
                rows += _flat(value, f"{label} ")
        elif isinstance(value, int | float | str):
            rows.append((label, value))
    return rows


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
