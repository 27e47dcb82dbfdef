"""Commands that compare and search, and their help."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from daptune.cli.app import app
from daptune.cli.options import Json, ReportOptions, RunOptions, TuneOptions

_RUN = RunOptions()
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
def bench(
    plan: str | None = None,
    /,
    *,
    out: Path | None = None,
    executor: Literal["local", "ray"] = "local",
    ray_address: str | None = None,
    processes: int | None = None,
    data_root: Annotated[Path | None, Parameter(name=("--data-root", "--root"))] = None,
    device: str = "cpu",
    retry: bool = False,
    list: bool = False,
    json: Json = False,
) -> int:
    """Run a plan of experiments: methods x data sets x shots x seeds.

    Stop at any time; the same command resumes.

    Parameters
    ----------
    plan
        A ready plan, or a .toml file of your own; without one, the ready plans are listed.
    out
        Folder of the results; by default `runs/` followed by the plan's name.
    executor
        Processes of this machine, or a Ray cluster.
    ray_address
        Address of the Ray cluster; default: this machine's cluster, or a new one.
    processes
        Number of processes on this machine; by default as many as cores and memory allow.
    data_root
        Folder of the benchmark data sets; by default $DAPTUNE_DATA, else `data`.
    device
        PyTorch device: `cpu`, `cuda` (one job per GPU), `mps`.
    retry
        Also run the jobs that failed before.
    list
        List what is done, failed and missing, and run nothing.
    """
    from daptune.cli.bench import run

    return run(
        plan, out, executor=executor, ray_address=ray_address, processes=processes, data_root=data_root, device=device,
        retry=retry, listing=list, as_json=json,
    )  # fmt: skip


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
