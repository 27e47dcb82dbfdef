"""How to repeat bench runs: what to type, and what has to be the same."""

import hashlib
import shlex
from collections.abc import Sequence

from daptune.bench.results import PLAN, RESULTS
from daptune.report.html import tag
from daptune.report.page import Section
from daptune.report.runs import Runs
from daptune.report.table import Cell, Table, text_row


def repeat_section(runs: Runs, command: Sequence[str]) -> Section:
    """What to type, and what has to be the same."""
    typed = [f"daptune bench {shlex.quote(str(run / PLAN))} --out {shlex.quote(str(run))}" for run in runs.folders]
    lines = [*typed, shlex.join(command)] if command else typed
    typed_text = tag("pre", tag("code", "\n".join(lines)))
    more = []
    rows = []
    for run in runs.folders:
        digest = hashlib.sha256((run / RESULTS).read_bytes()).hexdigest()
        rows.append(text_row(f"sha256 of {run.resolve().name}/{RESULTS}", digest))
    for name, sha in dict.fromkeys((r.backbone.get("name", "?"), r.backbone.get("sha256", "?")) for r in runs.results):
        rows.append(text_row(f"sha256 of backbone {name}", sha))
    precisions = dict.fromkeys(r.backbone.get("precision", "?") for r in runs.results)
    rows.append(text_row("precision", ", ".join(precisions)))
    versions: dict[str, dict[str, None]] = {}
    for result in runs.results:
        for name, version in result.versions.items():
            versions.setdefault(name, {})[version] = None
    rows += [text_row(name, ", ".join(found)) for name, found in versions.items()]
    same = Table("versions", "What a repetition must share", ("what", "value"), tuple(rows), left=2)
    splits = dict.fromkeys((r.dataset, r.shots, r.seed, r.split_hash) for r in runs.results if r.split_hash)
    hashes = tuple(
        text_row(name, Cell(str(shots), shots), Cell(str(seed), seed), digest) for name, shots, seed, digest in splits
    )
    for run in runs.folders:
        try:
            plan = (run / PLAN).read_text("utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        more.append(tag("details", tag("summary", f"The plan of {run.resolve().name}"), tag("pre", tag("code", plan))))
    folded = []
    if hashes:
        columns = ("data set", "shots", "seed", "hash")
        folded.append(Table("splits", "Fingerprints of the images learned from", columns, hashes))
    return Section("repeat", "To repeat this", typed_text, tables=[same], folded=folded, more=more)
