"""`daptune report`: bench runs, or one fit -> one HTML page with its figures and tables beside it."""

from collections.abc import Callable, Sequence
from pathlib import Path

from daptune.adapter.drawn import held_out_images
from daptune.adapter.record import JSON_FILE, read_record
from daptune.bench.datasets import read_dataset
from daptune.bench.results import RESULTS, Result
from daptune.cli.console import emit_json, note, print_pairs, progress, say, size_text
from daptune.cli.loading import load_with
from daptune.cli.options import ReportOptions, RunOptions
from daptune.cli.runs import command_of
from daptune.data.benchmarks.reading import data_root
from daptune.data.cache import Decoder
from daptune.data.table import ImageTable
from daptune.errors import BackboneError, DaptuneError, DataError
from daptune.evaluate import BATCH, judge_by_images, nearest_words, zero_shot
from daptune.report.bench_features import Sources
from daptune.report.bench_page import bench_page
from daptune.report.fit import fit_page
from daptune.report.page import Page, check_out, write_page
from daptune.report.runs import is_bench_run, read_runs
from daptune.report.steps import Places
from daptune.train import History
from daptune.train.history import HISTORY_NAME

WORDS = 3
"""Vocabulary words for each learned text token."""


def run(runs: Sequence[Path], chosen: ReportOptions, options: RunOptions) -> int:
    """Run the command. Raises DaptuneError for bad input, with nothing written."""
    folders, out = [folder.expanduser() for folder in runs], chosen.out
    if not folders:
        raise DataError("nothing to report on; name folders of `daptune bench`, or the folder of one `daptune fit`")
    check_out(out)
    command = ["daptune", "report", *map(str, folders), "--out", str(out)]
    benches = [folder for folder in folders if is_bench_run(folder)]
    with progress(steps=False) as bar:
        task = bar.add_task("report", total=None, note="")

        def tell(what: str) -> None:
            bar.update(task, note=what)

        if benches:
            if strange := [folder for folder in folders if folder not in benches]:
                raise DataError(f"{strange[0]} holds no {RESULTS}, and a fit is not reported together with bench runs")
            if chosen.images is not None:
                raise DataError("--images is for the report of one fit; leave it out for bench runs")
            command += ["--focus", chosen.focus] if chosen.focus else []
            root = data_root(chosen.data_root)
            sources = Sources(
                lambda result: images_of(result, root),
                lambda folder: load_with(folder, options).method_,
                options.batch_size or BATCH,
            )
            page = bench_page(read_runs(benches), focus=chosen.focus, sources=sources, command=command, note=tell)
        else:
            page = _fit(folders, chosen, command, options, tell)
        files = write_page(page, out)
    size, lines = out.expanduser().stat().st_size, [*page.says, *(step.line for step in page.steps)]
    if chosen.json:
        emit_json({"report": str(out), "bytes": size, "files": [str(path) for path in files], "says": lines})
        return 0
    for line in lines:
        say(line.replace("[", "\\["))
    say()
    print_pairs({"report": f"{out} ({size_text(size)})", "files": f"{len(files) - 1} in {files[0].parent}"})
    return 0


def _fit(
    folders: Sequence[Path],
    chosen: ReportOptions,
    command: list[str],
    options: RunOptions,
    tell: Callable[[str], object],
) -> Page:
    """The page of the adapter among the folders, with the history of its run folder if there is one."""
    if chosen.focus is not None:
        raise DataError("--focus is for bench runs; leave it out for the report of one fit")
    folder, history = find_fit(folders)
    places = Places(str(folder), None if chosen.images is None else str(chosen.images))
    record = read_record(folder)
    method, baseline, found, decoder = None, None, None, Decoder()
    try:
        method = load_with(folder, options).method_
    except DaptuneError as error:
        if chosen.images is not None or not isinstance(error.__cause__, BackboneError):
            raise
        note(f"daptune: the report holds only what is recorded in the adapter: {error}")
    if method is not None:
        templates = tuple(record.data.get("templates", ()))
        baseline = zero_shot(method.backbone, method.names, templates, record.data.get("dataset"))
    if chosen.images is not None:
        tell("reading images")
        found = held_out_images(record, chosen.images, decoder)
        command += ["--images", str(chosen.images)]
        if record.multi_label and baseline is not None and (seen := found.train or found.test) is not None:
            judge_by_images(baseline, seen, None, decoder)  # a bias by the shares of the classes
    return fit_page(
        record,
        method,
        history=history,
        images=found,
        baseline=baseline,
        words=[] if method is None else nearest_words(method, WORDS),
        batch_size=options.batch_size or BATCH,
        decoder=decoder,
        name=folder.resolve().name,
        places=places,
        made_by=command_of(folder, [run for run in folders if run != folder], places.images),
        command=command,
        note=tell,
    )


def images_of(result: Result, root: Path) -> ImageTable:
    """The test images that a result was measured on. Raises DataError if they are not available."""
    table = read_dataset(result.dataset, root).test
    if table is None or table.class_names != result.class_names:
        raise DataError(f"the test images of {result.dataset} are not those of these results.")
    return table


def find_fit(folders: Sequence[Path]) -> tuple[Path, History | None]:
    """The adapter's folder, and the history of its run, if any: from a given folder, or from `ADAPTER.run`.

    Raises DataError for no adapter, or more than one.
    """
    adapters = [folder for folder in folders if (folder / JSON_FILE).is_file()]
    runs = [folder for folder in folders if folder not in adapters and (folder / HISTORY_NAME).is_file()]
    if strange := [folder for folder in folders if folder not in (*adapters, *runs)]:
        holds = "does not exist" if not strange[0].exists() else f"holds neither {RESULTS} nor {JSON_FILE}"
        raise DataError(f"{strange[0]} {holds}; name a folder of `daptune bench`, or an adapter of `daptune fit`")
    if not adapters and len(runs) == 1:
        own = runs[0].resolve()
        beside = own.with_name(own.name.removesuffix(".run"))
        adapters = [beside] if (beside / JSON_FILE).is_file() else []
    if len(adapters) != 1 or len(runs) > 1:
        found = f"{len(adapters)} adapters and {len(runs)} run folders"
        raise DataError(f"a report is of one fit: expected one adapter, found {found}; name the adapter's folder")
    own = adapters[0].resolve()
    own = own.with_name(own.name + ".run")
    place = runs[0] if runs else own if (own / HISTORY_NAME).is_file() else None
    return adapters[0], None if place is None else History.read(place)
