"""Features before and after training: dispersion as measured by `daptune bench`, and maps if images are available."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from daptune.adapter.record import JSON_FILE
from daptune.bench.results import ADAPTERS, Result
from daptune.errors import DaptuneError
from daptune.report.bench_tables import dispersion_table
from daptune.report.board import Board
from daptune.report.html import tag
from daptune.report.page import Section
from daptune.report.svg import Figure
from daptune.report.table import file_name

if TYPE_CHECKING:
    from daptune.data.table import ImageTable
    from daptune.methods import Method

MOST_MAPS = 3  # maximum number of data sets with maps
Note = Callable[[str], object]


@dataclass(frozen=True)
class Sources:
    """Loaders of the test images of a result and of the method in an adapter folder; both may raise DaptuneError."""

    find_images: Callable[[Result], "ImageTable"]
    load: Callable[[Path], "Method"]
    batch_size: int = 64


def features_section(boards: dict[str, Board], sources: Sources | None, note: Note) -> list[Section]:
    board = boards.get("fewshot") or next(iter(boards.values()))
    table = dispersion_table(board, board.top_shots)
    figures, lines = _maps(board, sources, note) if sources is not None else ([], [])
    if table is None and not lines:
        return []
    caption = (
        "t-SNE of unit features of test images and of the class texts (stars). Only neighbourhoods are meaningful, not "
        "distances or group sizes. Images and texts are centred separately so that they share a map."
    )
    text, tables = tag("p", " ".join(lines)) if lines else "", [table] if table is not None else []
    title = "Features before and after training"
    return [Section("features", title, text, figures=figures, caption=caption, tables=tables)]


def _maps(board: Board, sources: Sources, note: Note) -> tuple[list[Figure], list[str]]:
    """Figures, and sentences on silhouettes and on data sets without maps."""
    figures: list[Figure] = []
    lines: list[str] = []
    without = []
    for dataset in board.datasets[:MOST_MAPS]:
        first = next(iter(board.rows(board.focus, dataset, board.top_shots)), None)
        if first is None:
            continue
        folder = (first.run or Path()) / ADAPTERS / first.key
        if not (folder / JSON_FILE).is_file():
            without.append(dataset)
            continue
        note(f"encoding {dataset}")
        try:
            drawn, line = _map(first, folder, sources)
        except DaptuneError as error:
            drawn, line = [], f"No maps of {dataset}: {error}"
        figures += drawn
        lines.append(line)
    if without:
        lines.append(f"No maps of {', '.join(without)}: the runs have no adapters of {board.focus} there.")
    return figures, lines


def _map(result: Result, folder: Path, sources: Sources) -> tuple[list[Figure], str]:
    from daptune.bench.measure import evenly
    from daptune.evaluate import zero_shot
    from daptune.report.embedding import MOST_IMAGES, encode, map_figures

    table = evenly(sources.find_images(result), MOST_IMAGES)
    method = sources.load(folder)
    before = zero_shot(method.backbone, method.names)
    plain, learned = (encode(one, table, batch_size=sources.batch_size) for one in (before, method))
    name = f"map-{file_name(result.dataset)}"
    maps = [("zero_shot", plain), (f"{result.label}, seed {result.seed}", learned)]
    figures = map_figures(name, method.class_names, maps)
    before_after = f"{plain.silhouette():.3f} before and {learned.silhouette():.3f} after".replace("-", "−")
    where = f"{len(table)} test images by class (in all {plain.images.shape[1]} dimensions)"
    return figures, f"{result.dataset}: the silhouette of {where} is {before_after} training."
