"""The commands with much work, and their help."""

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from daptune import __version__
from daptune.cli.console import starting
from daptune.cli.early import check_folder, check_method, check_options
from daptune.cli.options import (
    Adapter,
    BenchOptions,
    CompareOptions,
    FitOptions,
    Json,
    PredictOptions,
    ReportOptions,
    RunOptions,
    SuggestOptions,
    TuneOptions,
)

_EPILOGUE = "Every command has --help. Bad input is one line and exit code 2; add --debug for the traceback."

app = App(
    name="daptune",
    help="Adapt a frozen CLIP to your own image classes from a handful of images each, by learning prompts.",
    version=__version__,
    help_format="plaintext",
    help_epilogue=_EPILOGUE,
    default_parameter=Parameter(negative=()),
    exit_on_error=False,
    print_error=False,
    result_action="return_value",
)

command = partial(app.command, help_format="markdown")
"""Declares a command. Its help is Markdown; the list of all commands is plain, as a Markdown reader loads slowly."""

_FIT = FitOptions()
_RUN = RunOptions()
_PREDICT = PredictOptions()
_REPORT = ReportOptions()
_BENCH = BenchOptions()
_TUNE = TuneOptions()
_COMPARE = CompareOptions()
_SUGGEST = SuggestOptions()


def _check(folder: Path, options: FitOptions | TuneOptions) -> None:
    """Raise DaptuneError for words that can be told to be wrong before the imports that take seconds."""
    check_method(options.method)
    check_options(options.method, options.set_options, options.train_options)
    check_folder(folder)


@command
def demo(
    *,
    out: Path = Path("daptune-demo"),
    pictures: Literal["photographs", "emoji"] = "photographs",
    epochs: int | None = None,
    seed: int = 1,
    json: Json = False,
) -> int:
    """Learn, compare and predict on an embedded backbone and pictures: needs no download, takes about a minute.

    Parameters
    ----------
    out
        Folder for the pictures and the adapter.
    pictures
        `photographs` of Caltech101 and EuroSAT, or `emoji` in four styles.
    epochs
        Passes over the images.
    seed
        Random seed for the few-shot sample, the initial prompts and the order of training.
    """
    starting("demo")
    from daptune.cli.demo import run

    return run(out, pictures=pictures, epochs=epochs, seed=seed, as_json=json)


@command
def fit(folder: Path, /, *, options: FitOptions = _FIT) -> int:
    """Learn prompts from a folder of images and save them as an adapter.

    Parameters
    ----------
    folder
        Folder with one sub-folder per class, optionally below `train/`, `val/`, `test/`; or a table (.csv, .tsv,
        .parquet with path and label), a `split_zhou_*.json`, or `data:NAME` for a benchmark data set.
    """
    _check(folder, options)
    starting("fit")
    from daptune.cli.fit import run

    return run(folder, options)


@command
def predict(
    adapter: Adapter,
    /,
    *paths: Annotated[str, Parameter(allow_leading_hyphen=False)],
    predict_options: PredictOptions = _PREDICT,
    options: RunOptions = _RUN,
) -> int:
    """Label images: one row per image, in order, with the class and its probability.

    A file that cannot be read gets a row with `error` in its place; the exit code is 2 only if none could be read.

    Parameters
    ----------
    paths
        Files, folders (with all below them), lists (.txt with one path per line, or `-` for standard input) and tables
        (.csv, .tsv, .parquet with a column `path` or `image`).
    """
    from daptune.cli.predict import run

    return run(adapter, paths, predict_options, options)


@command
def suggest(
    adapter: Adapter,
    /,
    *paths: Annotated[str, Parameter(allow_leading_hyphen=False)],
    suggest_options: SuggestOptions = _SUGGEST,
    options: RunOptions = _RUN,
) -> int:
    """List the unlabelled images that are most worth a label: the adapter is unsure of them, and they differ.

    One image a line with its most probable class and the probability, separated by tabs, least certain first. Files
    that cannot be read are counted and left out.

    Parameters
    ----------
    paths
        Files, folders, lists and tables, as for `daptune predict`.
    """
    from daptune.cli.suggest import run

    return run(adapter, paths, suggest_options, options)


@command
def report(
    *runs: Annotated[Path, Parameter(allow_leading_hyphen=False)],
    report_options: ReportOptions = _REPORT,
    options: RunOptions = _RUN,
) -> int:
    """Write an HTML report on benchmark runs or one fit: figures, tables, conclusions, and the commands to repeat it.

    The report is one HTML file that needs no network. The folder beside it with the same name and `-files` appended
    holds the figures as SVG and the tables as CSV and LaTeX.

    Parameters
    ----------
    runs
        Folders of `daptune bench`, which are combined; or the folder of one adapter.
    """
    from daptune.cli.report import run

    return run(runs, report_options, options)


@command
def bench(plan: str | None = None, /, *, options: BenchOptions = _BENCH) -> int:
    """Run a plan of experiments: methods x data sets x shots x seeds.

    Stop at any time; the same command resumes. With `multi_label = true` a plan measures mAP.

    Parameters
    ----------
    plan
        A ready plan, or a .toml file of your own; without one, the ready plans are listed.
    """
    from daptune.cli.bench import run

    return run(plan, options)


@command
def tune(folder: Path, /, *, options: TuneOptions = _TUNE) -> int:
    """Search learning rate, epochs, loss weights and numbers of tokens for a folder of images; never on test images.

    Measured on the `val/` images if there are any, else by cross-validation of the training images; with
    `--multi-label` by mAP.
    Stop at any time; the same command resumes.

    Parameters
    ----------
    folder
        Labelled images, as for `daptune fit`.
    """
    _check(folder, options)
    starting("tune")
    from daptune.cli.tune import run

    return run(folder, options)


@command
def compare(folder: Path, /, *, options: CompareOptions = _COMPARE) -> int:
    """Compare methods on a folder of images by cross-validation; never on test images. Saves nothing.

    With `--multi-label` by mAP; methods that cannot learn several labels are left out, and named.
    `daptune fit FOLDER --method auto` makes the same comparison, chooses a method and trains it.

    Parameters
    ----------
    folder
        Labelled images, as for `daptune fit`.
    """
    for word in filter(None, map(str.strip, (options.methods or "").split(","))):
        check_method(word)
    check_folder(folder)
    starting("compare")
    from daptune.cli.compare import run

    return run(folder, options)
