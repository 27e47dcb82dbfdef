"""The verbs of every day and their help. The work is done in the module of each verb, imported when it runs.

`research.py` declares more; `export.py`, `serve.py` and `sharing.py` declare their own.
"""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from daptune import __version__
from daptune.cli.options import Adapter, FitOptions, Json, PredictOptions, RunOptions

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
    from daptune.cli.eval_ import run

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
def show(adapter: Adapter, /, *, words: int = 3, json: Json = False) -> int:
    """Show what an adapter holds: method, classes, figures, size, and the words nearest to its learned context.

    Parameters
    ----------
    words
        Vocabulary words to name for each learned text token; 0 leaves them out.
    """
    from daptune.cli.show import run

    return run(adapter, words=words, as_json=json)
