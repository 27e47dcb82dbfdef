"""Commands that compare and search, and their help."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from daptune.cli.app import app
from daptune.cli.options import BenchOptions, ReportOptions, RunOptions, TuneOptions

_RUN = RunOptions()
_BENCH = BenchOptions()
_REPORT = ReportOptions()
_TUNE = TuneOptions()


@app.command
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


@app.command
def bench(plan: str | None = None, /, *, options: BenchOptions = _BENCH) -> int:
    """Run a plan of experiments: methods x data sets x shots x seeds.

    Stop at any time; the same command resumes.

    Parameters
    ----------
    plan
        A ready plan, or a .toml file of your own; without one, the ready plans are listed.
    """
    from daptune.cli.bench import run

    return run(plan, options)


@app.command
def tune(folder: Path, /, *, options: TuneOptions = _TUNE) -> int:
    """Search learning rate, epochs, loss weights and numbers of tokens for a folder of images; never on test images.

    Measured on the `val/` images if there are any, else by cross-validation of the training images.
    Stop at any time; the same command resumes.

    Parameters
    ----------
    folder
        Labelled images, as for `daptune fit`.
    """
    from daptune.cli.tune import run

    return run(folder, options)
