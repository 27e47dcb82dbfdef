"""The page of bench runs; its sections depend on their experiments."""

from collections.abc import Sequence

from daptune.bench.results import Result
from daptune.bench.summary import BY_PLACE, counted, sets_text
from daptune.errors import DataError, suggest
from daptune.report.bench_charts import difference_figures, fewshot_figures, overview_figure
from daptune.report.bench_features import Note, Sources, features_section
from daptune.report.bench_tables import (
    ablation_table,
    all_results_table,
    base_to_new_table,
    cost_table,
    shots_tables,
    significance_table,
    targets_of,
    targets_table,
)
from daptune.report.board import Board, choose_focus
from daptune.report.html import tag
from daptune.report.page import Page, Section
from daptune.report.repeat import repeat_section
from daptune.report.runs import Runs
from daptune.report.says import bench_says
from daptune.report.table import Table, text_row

KINDS = {"comparison": "fewshot"}
"""Kinds of experiments that are shown as another kind; unknown kinds are shown as few-shot learning."""
ORDER = ("fewshot", "domain", "crossdataset", "ablation", "base2new")


def bench_page(
    runs: Runs,
    *,
    focus: str | None = None,
    sources: Sources | None = None,
    command: Sequence[str] = (),
    note: Note = str,
) -> Page:
    """The page of bench runs. `focus` is the label to compare the others with, by default dapt.

    Without `sources` there are no maps. `command` is the command line, for the section on repeating. `note` is called
    with each slow step. Raises DataError for a focus without results.
    """
    labels = {result.label for result in runs.results}
    if focus is not None and focus not in labels:
        raise DataError(f"no result is labelled {focus!r}.{suggest(focus, labels)}")
    chosen = choose_focus(runs.results, focus)
    boards = boards_of(runs.results, chosen)
    sections = [section for kind, board in boards.items() for section in _of_kind(kind, board)]
    sections += features_section(boards, sources, note)
    sections += _significance(boards)
    sections.append(_costs(runs, boards))
    sections.append(repeat_section(runs, command))
    plans = dict.fromkeys(result.plan for result in runs.results)
    datasets = list(dict.fromkeys(result.dataset for result in runs.results))
    beside = f" compared with {counted(len(labels) - 1, 'method')}" if len(labels) > 1 else ""
    facts = [
        ("results", f"{len(runs.results)}" + (f", {len(runs.failures)} failed" if runs.failures else "")),
        ("methods", str(len(labels))),
        ("data sets", str(len(datasets))),
        ("seeds", str(len({result.seed for result in runs.results}))),
        ("backbone", ", ".join(dict.fromkeys(result.backbone.get("name", "?") for result in runs.results))),
    ]
    return Page(
        title=f"{chosen}{beside} on {sets_text(datasets)}",
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


def _of_kind(kind: str, board: Board) -> list[Section]:
    if kind == "fewshot":
        return _fewshot(board)
    if kind == "ablation":
        text = "The same prompts with none, one and both of the dispersion losses, other settings equal."
        return [Section(kind, "What each loss adds", text, tables=[ablation_table(board, board.top_shots)])]
    if kind == "base2new":
        text = "Trained on the first half of the classes and tested on both halves, each with its own classes only."
        return [Section(kind, "Base to new classes", text, tables=[base_to_new_table(board, board.top_shots)])]
    title = "Other domains" if kind == "domain" else "Other data sets"
    text = f"Trained on {', '.join(board.datasets)} only and tested on other data sets."
    tables = [targets_table(board, kind, source) for source in board.datasets]
    left_out = {f"{r.label} on {target}: {reason}" for r in board.results for target, reason in r.skipped.items()}
    return [
        Section(kind, title, text, tables=tables, more=[tag("p", line, class_="note") for line in sorted(left_out)])
    ]


def _fewshot(board: Board) -> list[Section]:
    shots, sections, tables = board.top_shots, [], shots_tables(board)
    if bars := difference_figures(board, shots):
        caption = (
            f"Accuracy of {board.focus} minus that of the other method, in percentage points, at {shots} images per "
            "class. Lines are 95 % intervals of a paired bootstrap over test images; a bar is pale if its interval "
            "contains zero."
        )
        title = f"Comparison with each method at {counted(shots, 'shot')}"
        sections.append(Section("differences", title, figures=bars, caption=caption))
    figures = fewshot_figures(board) if len(board.shots) > 1 else []
    caption = (
        "Lines are means over seeds, small points single seeds, bands the 95 % interval of the mean by Student's t "
        "(wide for few seeds, and cut off by the axis). The dashed line is zero-shot CLIP."
    )
    title, first, rest = "Accuracy by images per class", tables[:1], tables[1:]
    return [*sections, Section("fewshot", title, figures=figures, caption=caption, tables=first, folded=rest)]


def _significance(boards: dict[str, Board]) -> list[Section]:
    tables = []
    for kind, board in boards.items():
        halves = ("base", "new") if kind == "base2new" else targets_of(board)
        if table := significance_table(board, kind, halves if kind in BY_PLACE else ("test",)):
            tables.append(table)
    focus = next(iter(boards.values())).focus
    text = (
        f"Accuracy of {focus} minus that of the other method on the same images, in percentage points, averaged over "
        "seeds, with the 95 % interval and two-sided p value of a paired bootstrap over images (10,000 resamples, seed "
        "0). Of many comparisons some have p < 0.05 by chance; Holm's p is adjusted for their number within a table."
    )
    return [Section("significance", "Significance", text, folded=tables)] if tables else []


def _costs(runs: Runs, boards: dict[str, Board]) -> Section:
    tables = [cost_table(Board(runs.results, next(iter(boards.values())).focus))]
    more = [tag("p", line, class_="note") for line in runs.notes]
    if runs.failures:
        rows = tuple(text_row(f.label, f.dataset, str(f.shots), str(f.seed), f.error) for f in runs.failures)
        failed = Table("failed", "Jobs that failed", ("method", "data set", "shots", "seed", "error"), rows, left=5)
        more.append(failed.to_html())
    every = all_results_table(boards.values())
    return Section("costs", "Costs and every run", tables=tables, folded=[every], more=more)
