"""The section on how to repeat bench runs."""

import contextlib
import hashlib
import shlex
from collections.abc import Sequence

from daptune.bench.results import PLAN, RESULTS
from daptune.report.html import tag
from daptune.report.page import Section
from daptune.report.runs import Runs
from daptune.report.table import Table, number, text_row


def repeat_section(runs: Runs, command: Sequence[str]) -> Section:
    typed = [f"daptune bench {shlex.quote(str(run / PLAN))} --out {shlex.quote(str(run))}" for run in runs.folders]
    typed += [shlex.join(command)] if command else []
    rows, more = [], []
    for run in runs.folders:
        name = run.resolve().name
        digest = hashlib.sha256((run / RESULTS).read_bytes()).hexdigest()
        rows.append(text_row(f"sha256 of {name}/{RESULTS}", digest))
        with contextlib.suppress(OSError, UnicodeDecodeError):
            plan = tag("pre", tag("code", (run / PLAN).read_text("utf-8")))
            more.append(tag("details", tag("summary", f"The plan of {name}"), plan))
    for name, sha in dict.fromkeys((r.backbone.get("name", "?"), r.backbone.get("sha256", "?")) for r in runs.results):
        rows.append(text_row(f"sha256 of backbone {name}", sha))
    precisions = dict.fromkeys(r.backbone.get("precision", "?") for r in runs.results)
    rows.append(text_row("precision", ", ".join(precisions)))
    versions: dict[str, dict[str, None]] = {}
    for result in runs.results:
        for name, version in result.versions.items():
            versions.setdefault(name, {})[version] = None
    rows += [text_row(name, ", ".join(found)) for name, found in versions.items()]
    same = Table("versions", "Data and versions to repeat these runs", ("item", "value"), tuple(rows), left=2)
    splits = dict.fromkeys((r.dataset, r.shots, r.seed, r.split_hash) for r in runs.results if r.split_hash)
    hashes = tuple(text_row(name, number(shots), number(seed), digest) for name, shots, seed, digest in splits)
    columns = ("data set", "shots", "seed", "hash")
    folded = [Table("splits", "Fingerprints of the training images", columns, hashes)] if hashes else []
    text = tag("pre", tag("code", "\n".join(typed)))
    return Section("repeat", "To repeat this", text, tables=[same], folded=folded, more=more)
