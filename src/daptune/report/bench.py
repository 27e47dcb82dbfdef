"""The page of bench runs: which experiments they hold decides which sections it has."""

import hashlib
import shlex
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from daptune.errors import DaptuneError, DataError, suggest
from daptune.report.charts import difference_figures, overview_figure
from daptune.report.compare import Board, choose_focus
from daptune.report.curves import fewshot_figures
from daptune.report.html import Html, tag
from daptune.report.page import Page, Section
from daptune.report.results import PLAN, RESULTS, Result, Runs
from daptune.report.says import bench_says
from daptune.report.svg import Figure
from daptune.report.table import Cell, Table, text_row
from daptune.report.tables import (
    ablation_table,
    all_results_table,
    base_to_new_table,
    cost_table,
    dispersion_table,
    shots_tables,
    significance_table,
    targets_of,
    targets_table,
)

if TYPE_CHECKING:
    from daptune.data.table import ImageTable

KINDS = {"comparison": "fewshot"}
"""Experiments that are shown together with another; what is not known is shown as few-shot learning."""
ORDER = ("fewshot", "domain", "crossdataset", "ablation", "base2new")
MOST_MAPS = 3
"""Data sets of which maps are drawn."""
Note = Callable[[str], object]


def bench_page(runs: Runs, *, focus: str | None = None, command: Sequence[str] = (), note: Note = str) -> Page:
    """The page of what the runs hold. `focus` is the label that the others are held against, by default dapt.

    `command` is what was typed, for the section on repeating; `note` is told what is being done. Raises DataError
    for a focus that no result has.
    """
    labels = {result.label for result in runs.results}
    if focus is not None and focus not in labels:
        raise DataError(f"no result is labelled {focus!r}.{suggest(focus, labels)}")
    chosen = choose_focus(runs.results, focus)
    boards = boards_of(runs.results, chosen)
    sections: list[Section] = []
    if "fewshot" in boards:
        sections += _fewshot(boards["fewshot"])
    if "domain" in boards:
        sections.append(_targets(boards["domain"], "domain", "Other domains"))
    if "crossdataset" in boards:
        sections.append(_targets(boards["crossdataset"], "crossdataset", "Other data sets"))
    if "ablation" in boards:
        board = boards["ablation"]
        text = "The same prompts with none, one and both of the dispersion losses; all else equal."
        table = ablation_table(board, board.shots[-1])
        sections.append(Section("ablation", "What each loss adds", text, tables=[table]))
    if "base2new" in boards:
        board = boards["base2new"]
        text = "Learned on the first half of the classes and tested on both halves, each among itself."
        table = base_to_new_table(board, board.shots[-1])
        sections.append(Section("base2new", "Base to new classes", text, tables=[table]))
    sections += _features(boards, note)
    sections += _significance(boards)
    sections.append(_costs(runs, boards))
    sections.append(_repeat(runs, command))
    plans = dict.fromkeys(result.plan for result in runs.results)
    datasets = list(dict.fromkeys(result.dataset for result in runs.results))
    where = datasets[0] if len(datasets) == 1 else f"{len(datasets)} data sets"
    others = len(labels) - 1
    beside = f" beside {others} other{'s' if others != 1 else ''}" if others else ""
    facts = [
        ("results", f"{len(runs.results)}" + (f", {len(runs.failures)} failed" if runs.failures else "")),
        ("methods", str(len(labels))),
        ("data sets", str(len(datasets))),
        ("seeds", str(len({result.seed for result in runs.results}))),
        ("backbone", ", ".join(dict.fromkeys(result.backbone.get("name", "?") for result in runs.results))),
    ]
    return Page(
        title=f"{chosen}{beside} on {where}",
        about=f"Report of daptune bench {', '.join(plans)}",
        says=bench_says(boards, chosen),
        sections=sections,
        facts=facts,
        overview=overview_figure(boards["fewshot"]) if "fewshot" in boards else None,
    )


def boards_of(results: Sequence[Result], focus: str) -> dict[str, Board]:
    """Kind of experiment -> its results, in the order of the page."""
    kinds: dict[str, list[Result]] = {kind: [] for kind in ORDER}
    for result in results:
        kind = KINDS.get(result.experiment, result.experiment)
        kinds[kind if kind in kinds else "fewshot"].append(result)
    return {kind: Board(tuple(rows), focus) for kind, rows in kinds.items() if rows}


def _fewshot(board: Board) -> list[Section]:
    shots = board.shots[-1]
    sections = []
    if bars := difference_figures(board, shots):
        caption = (
            f"Points by which {board.focus} is better, at {shots} images a class. Lines are 95 % intervals of a paired "
            "bootstrap over test images; a bar is pale where its interval holds zero."
        )
        title = f"Against each of the others at {shots} shots"
        sections.append(Section("differences", title, figures=bars, caption=caption))
    figures = fewshot_figures(board) if len(board.shots) > 1 else []
    caption = (
        "Lines are means over seeds, small points the seeds, bands the 95 % interval of the mean by Student's t (wide "
        "with few seeds); the axis is set by what was measured. The dashed line is CLIP without learning."
    )
    sections.append(
        Section(
            "fewshot",
            "Accuracy by images a class",
            figures=figures,
            caption=caption if figures else "",
            tables=shots_tables(board)[:1],
            folded=shots_tables(board)[1:],
        )
    )
    return sections


def _targets(board: Board, name: str, title: str) -> Section:
    source, shots = board.datasets[0], board.shots[-1]
    text = f"Learned on {source} alone and tested on what was never learned from."
    return Section(name, title, text, tables=[targets_table(board, name, shots)])


def _features(boards: dict[str, Board], note: Note) -> list[Section]:
    """Dispersion as measured, and maps where the images can be had again."""
    board = boards.get("fewshot") or next(iter(boards.values()))
    shots = board.shots[-1]
    table = dispersion_table(board, shots)
    figures, lines = _maps(board, shots, note)
    if table is None and not figures and not lines:
        return []
    caption = (
        "t-SNE of unit features of test images and of the classes' texts. Neighbours count, distances and the sizes of "
        "groups do not; stars are texts. Images and texts are centred, each by itself, to share a map."
    )
    text = tag("p", " ".join(lines)) if lines else ""
    return [
        Section(
            "features",
            "Features before and after",
            text,
            figures=figures,
            caption=caption if figures else "",
            tables=[table] if table is not None else [],
        )
    ]


def _maps(board: Board, shots: int, note: Note) -> tuple[list[Figure], list[str]]:
    """Figures, and a sentence for each data set that has none, or whose silhouettes were measured."""
    figures: list[Figure] = []
    lines: list[str] = []
    without = []
    for dataset in board.datasets[:MOST_MAPS]:
        rows = board.rows(board.focus, dataset, shots)
        if not rows:
            continue
        first = rows[0]
        folder = first.run / "adapters" / first.key
        if not (folder / "adapter.json").is_file():
            without.append(dataset)
            continue
        note(f"encoding {dataset}")
        try:
            drawn, line = _map(first, folder)
        except DaptuneError as error:
            lines.append(f"Maps of {dataset} are left out: {error}")
            continue
        figures += drawn
        lines.append(line)
    if without:
        lines.append(f"Maps of {', '.join(without)} are left out: the runs keep no adapters of {board.focus} there.")
    return figures, lines


def _map(result: Result, folder: Path) -> tuple[list[Figure], str]:
    from daptune.adapter import load_adapter
    from daptune.report.embedding import before, encode, few, image_figures, text_figures

    with tempfile.TemporaryDirectory() as scratch:
        table = few(_test_images(result, Path(scratch)))
        method = load_adapter(folder).method
        plain, learned = encode(before(method), table), encode(method, table)
    name = f"map-{''.join(c if c.isalnum() else '-' for c in result.dataset)}"
    maps = [("zero_shot", plain), (f"{result.label}, seed {result.seed}", learned)]
    figures = text_figures(name, method.class_names, maps) + image_figures(name, method.class_names, maps)
    return figures, (
        f"{result.dataset}: the silhouette of {len(table)} test images by class (cosine, in all "
        f"{plain.images.shape[1]} dimensions) is {plain.silhouette():.3f} before and {learned.silhouette():.3f} after."
    )


def _test_images(result: Result, scratch: Path) -> "ImageTable":
    """The test images of a data set; those of the demo come with the package. Raises DataError for others."""
    from daptune.data.demo import demo_styles, extract_demo
    from daptune.data.sources import read_source

    if result.dataset != "demo":
        raise DataError("the report finds the images of the demo alone.")
    folder = extract_demo(scratch) / demo_styles()[0] / "test"
    return read_source(folder, label_names=result.class_names).train


def _significance(boards: dict[str, Board]) -> list[Section]:
    tables = []
    for kind, board in boards.items():
        splits = {"base2new": ("base", "new"), "domain": targets_of(board), "crossdataset": targets_of(board)}
        if (table := significance_table(board, kind, splits.get(kind, ("test",)))) is not None:
            tables.append(table)
    focus = next(iter(boards.values())).focus
    text = (
        f"Points by which {focus} is better on the same images, seeds averaged, with the 95 % interval and two-sided p "
        "of a paired bootstrap over images (10,000 resamples, seed 0). With many comparisons some are below 0.05 by "
        "chance; Holm's p is adjusted for their number within a table."
    )
    return [Section("significance", "Significance", text, folded=tables)] if tables else []


def _costs(runs: Runs, boards: dict[str, Board]) -> Section:
    tables = [cost_table(Board(runs.results, next(iter(boards.values())).focus))]
    more: list[Html] = [tag("p", line, class_="note") for line in runs.notes]
    if runs.failures:
        rows = tuple(text_row(f.label, f.dataset, f.shots, f.seed, f.error) for f in runs.failures)
        failed = Table("failed", "Jobs that failed", ("method", "data set", "shots", "seed", "error"), rows, left=5)
        more.append(failed.to_html())
    every = all_results_table(boards.values())
    return Section("costs", "Costs and every run", tables=tables, folded=[every], more=more)


def _repeat(runs: Runs, command: Sequence[str]) -> Section:
    """What to type, and what has to be the same."""
    typed = [f"daptune bench {shlex.quote(str(run / PLAN))} --out {shlex.quote(str(run))}" for run in runs.folders]
    lines = [*typed, shlex.join(command)] if command else typed
    more = [tag("pre", tag("code", "\n".join(lines)))]
    rows = []
    for run in runs.folders:
        digest = hashlib.sha256((run / RESULTS).read_bytes()).hexdigest()
        rows.append(text_row(f"sha256 of {run.name}/{RESULTS}", digest))
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
        more.append(tag("details", tag("summary", f"The plan of {run.name}"), tag("pre", tag("code", plan))))
    folded = []
    if hashes:
        columns = ("data set", "shots", "seed", "hash")
        folded.append(Table("splits", "Fingerprints of the images learned from", columns, hashes))
    return Section("repeat", "To repeat this", tables=[same], folded=folded, more=more)
