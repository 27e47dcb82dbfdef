"""The verbs of comparisons and their help: data sets, plans, searches, reports."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from daptune.cli.app import app
from daptune.cli.options import ImportOptions, Json, RunOptions, TuneOptions

_RUN = RunOptions()
_IMPORT = ImportOptions()
_TUNE = TuneOptions()


@app.command
def report(
    *runs: Annotated[Path, Parameter(allow_leading_hyphen=False)],
    out: Path = Path("report.html"),
    images: Path | None = None,
    focus: str | None = None,
    data_root: Path | None = None,
    options: RunOptions = _RUN,
    json: Json = False,
) -> int:
    """Write a page about bench runs, or about one fit: figures and tables, what they say, and how to repeat it.

    The page is one HTML file that needs no network. Beside it, in a folder of its name with `-files` behind, stand the
    figures as SVG and the tables as CSV and LaTeX.

    Parameters
    ----------
    runs
        Folders of `daptune bench`, which are put together; or the folder of one adapter.
    out
        The page.
    images
        For one adapter, the folder that it was fitted from, or other labelled images: to show where it is wrong, how
        sure it is, and which training labels to check.
    focus
        For bench runs, the method that the others are held against; by default `dapt`.
    data_root
        For bench runs, the folder that the benchmark data sets lie in, to draw maps; as for `daptune bench`.
    """
    from daptune.cli.report import run

    return run(runs, out=out, images=images, focus=focus, data_root=data_root, options=options, as_json=json)


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
    """Run a plan of experiments: methods x data sets x shots x seeds. Stopped at any time, the same command goes on.

    Parameters
    ----------
    plan
        A ready plan, or a .toml file of your own; without one, the ready plans are listed.
    out
        Folder of the results; by default `runs/` and the plan's name.
    executor
        Processes of this machine, or a Ray cluster.
    ray_address
        Of the cluster; without it, the one that this machine belongs to, or a new one here.
    processes
        Of this machine; by default as many as cores and memory allow.
    data_root
        Folder that the benchmark data sets lie in; by default $DAPTUNE_DATA, else `data`.
    device
        Device of torch to run on: `cpu`, `cuda` (a job a GPU), `mps`.
    retry
        Also run what failed before.
    list
        Show what is done, failed and missing, and run nothing.
    """
    from daptune.cli.bench import run

    return run(
        plan, out, executor=executor, ray_address=ray_address, processes=processes, data_root=data_root, device=device,
        retry=retry, listing=list, as_json=json,
    )  # fmt: skip


@app.command
def tune(folder: Path, /, *, options: TuneOptions = _TUNE) -> int:
    """Search learning rate, epochs, loss weights and numbers of tokens for a folder of images; never on test images.

    Measured on the `val/` images where there are some, else by cross-validation of those that are learned from.
    Stopped at any time, the same command goes on.

    Parameters
    ----------
    folder
        As for `daptune fit`.
    """
    from daptune.cli.tune import run

    return run(folder, options)


data = App(name="data", help="The paper's data sets: list them, check a folder, fetch what can be fetched.")
app.command(data)
_Root = Annotated[
    Path | None, Parameter(name="--root", help="Folder of the data sets; by default $DAPTUNE_DATA, else ./data.")
]


@data.command(name="list")
def data_list(*, root: _Root = None, json: Json = False) -> int:
    """List the 11 data sets and 4 targets: classes, images by split, where they come from."""
    from daptune.cli.data import run_list

    return run_list(root, as_json=json)


@data.command(name="check")
def data_check(name: str, /, *, root: _Root = None, json: Json = False) -> int:
    """Compare a data set's folder with the published one: the tree, what is missing, counts by split.

    Exit code 2 where it is not whole.

    Parameters
    ----------
    name
        As `daptune data list` has it.
    """
    from daptune.cli.data import run_check

    return run_check(name, root, as_json=json)


@data.command(name="prepare")
def data_prepare(name: str, /, *, root: _Root = None, keep: bool = False, json: Json = False) -> int:
    """Fetch a data set as far as it has stable addresses, and say what is left to do by hand.

    What broke off goes on where it stopped; checksums are compared where one was published.

    Parameters
    ----------
    name
        As `daptune data list` has it.
    keep
        Leave the archives after they are unpacked.
    """
    from daptune.cli.data import run_prepare

    return run_prepare(name, root, keep=keep, as_json=json)


@app.command(name="import")
def import_(checkpoint: Path, /, *, options: ImportOptions = _IMPORT) -> int:
    """Turn a checkpoint of the official CoOp, DAPT or MaPLe code into an adapter, without running anything in it.

    Parameters
    ----------
    checkpoint
        `model-best.pth.tar` or `model.pth.tar-50`, as Dassl writes it.
    """
    from daptune.cli.import_ import run

    return run(checkpoint, options)
