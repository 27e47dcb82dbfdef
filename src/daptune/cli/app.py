"""The verbs and their help. The work is done in the module of each verb, imported when it runs."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from daptune import __version__
from daptune.cli.options import (
    Adapter,
    FitOptions,
    ImportOptions,
    Json,
    Precision,
    PredictOptions,
    RunOptions,
    SetOptions,
    Shots,
)
from daptune.serve.limits import Limits

_EPILOGUE = "Every verb has --help. Bad input is one line and exit code 2; add --debug for the traceback."

app = App(
    name="daptune",
    help="Adapt a frozen CLIP to your own image classes from a handful of images each, by learning prompts.",
    version=__version__,
    help_format="markdown",
    help_epilogue=_EPILOGUE,
    default_parameter=Parameter(negative=()),
    exit_on_error=False,
    print_error=False,
    result_action="return_value",
)

_FIT = FitOptions()
_RUN = RunOptions()
_PREDICT = PredictOptions()
_IMPORT = ImportOptions()
_LIMITS = Limits()


@app.command
def demo(*, out: Path = Path("daptune-demo"), epochs: int | None = None, seed: int = 1, json: Json = False) -> int:
    """Learn, compare and predict on the embedded backbone and pictures: needs no download, takes about a minute.

    Parameters
    ----------
    out
        Folder for the pictures and the adapter.
    epochs
        Passes over the images.
    seed
        Draws the images, the first prompts and the order of training.
    """
    from daptune.cli.demo import run

    return run(out, epochs=epochs, seed=seed, as_json=json)


@app.command
def fit(folder: Path, /, *, options: FitOptions = _FIT) -> int:
    """Learn prompts from a folder of images and save them as an adapter.

    Parameters
    ----------
    folder
        One sub-folder of images a class, maybe below `train/`, `val/` and `test/`; or a table (.csv, .tsv, .parquet
        with path and label), or a `split_zhou_*.json`, or `data:NAME` for a benchmark data set.
    """
    from daptune.cli.fit import run

    return run(folder, options)


@app.command(name="eval")
def evaluate(
    adapter: Adapter,
    folder: Path,
    /,
    *,
    split: Literal["train", "val", "test", "all"] | None = None,
    new_classes: bool = False,
    options: RunOptions = _RUN,
    json: Json = False,
) -> int:
    """Measure an adapter on labelled images: accuracy, macro-F1 and a row for each class.

    Parameters
    ----------
    folder
        Labelled images, as for `daptune fit`; its classes are matched with the adapter's by name.
    split
        Which images; by default `test` where the folder has one, else all.
    new_classes
        Take the class names of the folder instead of the adapter's: the same prompts on other classes.
    """
    from daptune.cli.evaluate import run

    return run(adapter, folder, split=split, new_classes=new_classes, options=options, as_json=json)


@app.command
def predict(
    adapter: Adapter,
    /,
    *paths: Annotated[str, Parameter(allow_leading_hyphen=False)],
    predict_options: PredictOptions = _PREDICT,
    options: RunOptions = _RUN,
) -> int:
    """Label images: one row a file, in order, with the class and its probability.

    A file that cannot be read gets a row with `error` in its place; the exit code is 2 only if none could be read.

    Parameters
    ----------
    paths
        Files, folders (with all below them), lists (.txt with one path a line, or `-` for standard input) and tables
        (.csv, .tsv, .parquet with a column `path` or `image`).
    """
    from daptune.cli.predict import run

    return run(adapter, paths, predict_options, options)


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
def methods(*, backbone: str = "tiny", json: Json = False) -> int:
    """List the methods: what each learns, and how many numbers on a backbone.

    Parameters
    ----------
    backbone
        The frozen CLIP to count for.
    """
    from daptune.cli.methods import run

    return run(backbone, as_json=json)


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
def tune(
    folder: Path,
    /,
    *,
    method: str = "dapt",
    backbone: str = "tiny",
    shots: Shots = 16,
    seed: int = 1,
    out: Path = Path("daptune-tune"),
    trials: int = 30,
    minutes: float | None = None,
    folds: int = 3,
    lr: float | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    set_options: SetOptions = (),
    holdout: float = 0.2,
    precision: Precision = "auto",
    device: str = "cpu",
    json: Json = False,
) -> int:
    """Search learning rate, epochs, loss weights and numbers of tokens for a folder of images; never on test images.

    Measured on the `val/` images where there are some, else by cross-validation of those that are learned from.
    Stopped at any time, the same command goes on.

    Parameters
    ----------
    folder
        As for `daptune fit`.
    method
        What to learn; `daptune methods` lists them.
    backbone
        The frozen CLIP.
    seed
        Draws the images, as in `daptune fit`, and what is tried.
    out
        Folder of the trials; those that are there count.
    trials
        How many settings to try, the defaults among them.
    minutes
        Stop after so long, where that is sooner.
    folds
        Parts of the cross-validation.
    lr
        Keep this learning rate, and search the others.
    epochs
        Keep this number of passes over the images.
    batch_size
        Images in a step.
    holdout
        Part of the images that `daptune fit` will test on, where the folder has no `test/`; it is left alone.
    precision
        Of the frozen CLIP.
    device
        Device of torch to run on: `cpu`, `cuda`, `mps`.
    """
    from daptune.cli.tune import Limits, run

    options = FitOptions(
        method=method, backbone=backbone, shots=shots, seed=seed, lr=lr, epochs=epochs, batch_size=batch_size,
        set_options=set_options, holdout=holdout, precision=precision, device=device, json=json,
    )  # fmt: skip
    return run(folder, options, Limits(out, trials, minutes, folds))


@app.command
def show(adapter: Adapter, /, *, words: int = 3, json: Json = False) -> int:
    """Show what an adapter holds: method, classes, figures, size, and the words nearest to its learned context.

    Parameters
    ----------
    words
        Vocabulary words to name for each learned text token; 0 leaves them out.
    """
    from daptune.cli.show import run

    return run(adapter, words=words, as_json=json)


@app.command
def export(
    adapter: Adapter,
    /,
    *,
    to: Literal["onnx", "text-weights"] = "onnx",
    out: Path | None = None,
    dtype: Literal["fp32", "fp16", "int8"] = "fp32",
    images: Path | None = None,
    backbone: str | None = None,
    json: Json = False,
) -> int:
    """Write an adapter for other programs: one ONNX file, whose agreement with torch is measured, or class weights.

    `daptune predict model.onnx` runs the file, without torch.

    Parameters
    ----------
    to
        `onnx`: image tower with prompts, class weights, names and preprocessing in one file. `text-weights`: the
        class weights as .npy and CSV, for the same CLIP elsewhere.
    out
        File to write; by default `model.onnx` or `text-weights.npy`.
    dtype
        Of the image tower's matrices.
    images
        Folder that the agreement is measured on; by default the demo's pictures, or made-up ones.
    backbone
        Where the adapter's backbone lies now, if not under the name that the adapter has.
    """
    from daptune.cli.export import run

    return run(adapter, to=to, out=out, dtype=dtype, images=images, backbone=backbone, as_json=json)


@app.command
def push(
    adapter: Adapter, target: str, /, *, private: bool = False, revision: str | None = None, json: Json = False
) -> int:
    """Publish an adapter on the Hugging Face Hub, with its model card; log in first with `hf auth login`.

    Parameters
    ----------
    target
        `hf:user/name`; made if it is not there.
    private
        Make it visible to you alone.
    revision
        Branch to write to; made if it is not there.
    """
    from daptune.cli.push import run

    return run(adapter, target, private=private, revision=revision, as_json=json)


@app.command
def pull(backbone: str, /, *, revision: str | None = None, json: Json = False) -> int:
    """Download a backbone, or an adapter with its backbone, into the local cache, for use without a network later.

    Parameters
    ----------
    backbone
        `ViT-B-16/openai` and its like, or `hf:org/repo` of a backbone or an adapter.
    revision
        Commit, tag or branch on the hub.
    """
    from daptune.cli.pull import run

    return run(backbone, revision=revision, as_json=json)


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


@app.command
def serve(
    *paths: Path,
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str | None = None,
    backbone: str | None = None,
    precision: Precision | None = None,
    device: str = "cpu",
    limits: Annotated[Limits, Parameter(name="*")] = _LIMITS,
) -> int:
    """Serve adapters over HTTP, any number on one backbone in memory, with a page to use and to teach them.

    Parameters
    ----------
    paths
        Adapters; or a folder of adapters, which may be empty, to which taught and uploaded ones are written; or
        exported models (.onnx).
    host
        Address to listen at; beyond this machine it needs a token.
    port
        Port to listen at; 0 takes a free one.
    token
        What clients have to send as `Authorization: Bearer TOKEN`; also read from the variable DAPTUNE_TOKEN.
    backbone
        The frozen CLIP; by default that of the first adapter, or `tiny` where there is none yet.
    precision
        Of the frozen CLIP; by default that of the first adapter.
    device
        Device of torch to run on: `cpu`, `cuda`, `mps`.
    """
    from daptune.cli.serve import run

    return run(
        paths, host=host, port=port, token=token, limits=limits, backbone=backbone, precision=precision, device=device
    )
