"""What the verbs take, declared once: field name = option, default = default, text below it = help.

Only light imports: `daptune fit --help` must not wait for torch.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from daptune.errors import DaptuneError, DataError, MethodError

if TYPE_CHECKING:
    from daptune.classifier import FewShotClassifier


def _shots(kind: Any, tokens: Sequence[Any]) -> int | None:
    text = tokens[0].value
    if text.lower() == "all":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise DaptuneError(f"--shots must be a whole number of at least 1, or all; found {text!r}")
    return int(text)


Adapter = Annotated[Path, Parameter(help="Folder that `daptune fit` wrote, or `hf:user/name`.")]
Json = Annotated[bool, Parameter(name="--json", help="Print the result as JSON.")]
Precision = Literal["auto", "fp32", "bf16", "fp16-faithful"]
Shots = Annotated[
    int | None,
    Parameter(converter=_shots, metavar="K", help="Images of each class to learn from, or `all`."),
]
SetOptions = Annotated[
    tuple[str, ...],
    Parameter(
        name="--set",
        metavar="OPTION=VALUE",
        help="An option of the method, such as `inter_weight=1`; may be repeated.",
    ),
]
TrainOptions = Annotated[
    tuple[str, ...],
    Parameter(
        name="--train",
        metavar="NAME=VALUE",
        help="A setting of the training, any field of `TrainConfig`, such as `weight_decay=0.01`; may be repeated.",
    ),
]


@Parameter(name="*")
@dataclass(frozen=True)
class RunOptions:
    """Where the frozen CLIP runs."""

    device: str = "cpu"
    """Device of torch to run on: `cpu`, `cuda`, `mps`."""
    precision: Precision | None = None
    """Of the frozen CLIP. `auto` takes bf16 where the processor has it; a saved adapter otherwise keeps its own."""
    batch_size: int | None = None
    """Images at a time."""
    backbone: str | None = None
    """Where the adapter's backbone lies now, if not under the name that the adapter has."""


@Parameter(name="*")
@dataclass(frozen=True)
class FitOptions:
    """Everything that `daptune fit` takes besides the folder; a field of `TrainConfig`'s name goes to the training."""

    method: str = "dapt"
    """What to learn; `daptune methods` lists them."""
    backbone: str = "tiny"
    """The frozen CLIP: `tiny` (in the package), `ViT-B-16/openai`, `hf:org/repo`, a folder or a file."""
    shots: Shots = 16
    seed: int = 1
    """Draws the images, the first prompts and the order of training."""
    out: Path = Path("adapter")
    """Folder that the adapter is written to; an adapter that is there is replaced when the new one is complete."""
    set_options: SetOptions = ()
    train_options: TrainOptions = ()
    start_from: Annotated[Path | None, Parameter(name="--from", metavar="ADAPTER")] = None
    """Adapter of the same method and backbone, for any classes, whose learned tensors training starts from."""
    epochs: int | None = None
    """Passes over the images."""
    lr: float | None = None
    """Learning rate at its highest."""
    batch_size: int | None = None
    """Images in a step."""
    accumulate: int | None = None
    """Batches whose mean gradient makes one step; they share one pass of the text tower."""
    optimizer: Literal["adamw", "sgd"] | None = None
    """How the prompts are moved."""
    min_crop: float | None = None
    """Smallest share of an image that a random crop keeps; 1: no crops."""
    flip: float | None = None
    """Probability of a left-right flip, such as 0.5 for photographs; by default none."""
    views: int | None = None
    """Augmented views of an image, such as 8, in place of a new one in every epoch: quicker where text alone learns."""
    augment_on: Literal["workers", "device"] | None = None
    """`device` resizes random crops where the CLIP runs, not in the threads that decode: for a GPU that waits."""
    memory: Literal["fast", "low"] | None = None
    """`low` keeps less of the image tower for its backward and computes it anew: for a larger --batch-size."""
    compile: bool = False
    """Compile the towers' blocks first, which takes half a minute or more: for long runs on a GPU, as CUDA graphs."""
    precision: Precision = "auto"
    """Of the frozen CLIP; `auto` takes bf16 where the processor has it."""
    device: str = "cpu"
    """Device of torch to run on: `cpu`, `cuda`, `mps`."""
    devices: int = 1
    """Processes of this machine, a GPU each with `--device cuda`, that share each batch out; also under torchrun."""
    preset: str | None = None
    """`paper`: the settings of each method's official code. `fast`: a short run from words (coop, dapt)."""
    dataset: str | None = None
    """With --preset: the benchmark data set whose settings to take, such as `eurosat`."""
    holdout: float = 0.2
    """Part of the images to test on, where the folder has no `test/` of its own."""
    template: Annotated[tuple[str, ...], Parameter(metavar="TEXT")] = ()
    """Hand-written prompt of the zero-shot classifier, such as `a photo of a {}.`; may be repeated."""
    select: Literal["last", "best_val"] | None = None
    """Parameters of the last step, or of the best epoch on the validation images."""
    run_dir: Path | None = None
    """Folder of checkpoints and history; by default the adapter's folder with `.run` behind it."""
    cache_dir: Path | None = None
    """Folder that keeps decoded images for later runs, 20 GB at most, for images that are slow to read or decode."""
    resume: bool = False
    """Go on from the checkpoint of an interrupted run."""
    json: Json = False


@Parameter(name="*")
@dataclass(frozen=True)
class TuneOptions:
    """What `daptune tune` takes besides the folder: some of `FitOptions`, and how much is searched."""

    method: str = "dapt"
    """What to learn; `daptune methods` lists them."""
    backbone: str = "tiny"
    """The frozen CLIP."""
    shots: Shots = 16
    seed: int = 1
    """Draws the images, as in `daptune fit`, and what is tried."""
    out: Path = Path("daptune-tune")
    """Folder of the trials; those that are there count."""
    trials: int = 30
    """How many settings to try, the defaults among them."""
    minutes: float | None = None
    """Stop after so long, where that is sooner."""
    folds: int = 3
    """Parts of the cross-validation."""
    lr: float | None = None
    """Keep this learning rate, and search the others."""
    epochs: int | None = None
    """Keep this number of passes over the images."""
    batch_size: int | None = None
    """Images in a step."""
    set_options: SetOptions = ()
    train_options: TrainOptions = ()
    holdout: float = 0.2
    """Part of the images that `daptune fit` will test on, where the folder has no `test/`; it is left alone."""
    precision: Precision = "auto"
    """Of the frozen CLIP."""
    device: str = "cpu"
    """Device of torch to run on: `cpu`, `cuda`, `mps`."""
    json: Json = False

    def for_fit(self) -> FitOptions:
        """What `daptune fit` would be given in the same place."""
        own = asdict(self)
        return FitOptions(**{name: own[name] for name in own if name not in ("out", "trials", "minutes", "folds")})


@Parameter(name="*")
@dataclass(frozen=True)
class ImportOptions:
    """What `daptune import` takes besides the checkpoint."""

    method: str = "coop"
    """Whose checkpoint it is: `coop`, `dapt` or `maple`."""
    backbone: str = "ViT-B-16/openai"
    """The frozen CLIP that it was learned on."""
    classes: Path | None = None
    """Text file with a class name a line, in the order of the labels; the names inside the checkpoint are compared."""
    dataset: str | None = None
    """In place of --classes: the benchmark data set that it was learned on, read from --root."""
    root: Path | None = None
    """Folder of the data sets; by default $DAPTUNE_DATA, else ./data."""
    out: Path = Path("adapter")
    """Folder that the adapter is written to."""
    set_options: Annotated[tuple[str, ...], Parameter(name="--set", metavar="OPTION=VALUE")] = ()
    """An option of the method that the file does not tell, such as `class_position=middle`; may be repeated."""
    precision: Precision = "auto"
    """Of the frozen CLIP; the official code ran in fp16."""
    device: str = "cpu"
    """Device of torch to run on: `cpu`, `cuda`, `mps`."""
    json: Json = False


@Parameter(name="*")
@dataclass(frozen=True)
class PredictOptions:
    """What `daptune predict` takes besides the adapter and the images."""

    top_k: int = 1
    """Classes to name for each image, the likeliest first."""
    format: Literal["jsonl", "csv", "parquet"] | None = None
    """JSON lines, CSV or Parquet; by default what the name given to --out says, else JSON lines."""
    out: Path | None = None
    """File to write to, complete or not at all; the same command goes on with a run that was ended before. By default
    standard output."""
    shard: Annotated[str | None, Parameter(metavar="K/N")] = None
    """Only part K of N, such as `3/16`: images K, K + N, K + 2 N and so on, for N processes side by side."""
    executor: Literal["local", "ray"] = "local"
    """This process, or the tasks of a Ray cluster (`RAY_ADDRESS`), whose nodes see the same paths."""
    scaled_decoding: bool = False
    """Decode large JPEGs at a half, a quarter or an eighth of their size: faster, not quite the same pixels."""
    json: Annotated[bool, Parameter(name="--json")] = False
    """The same as `--format jsonl`."""


def key_values(
    words: Iterable[str], flag: str = "--set", example: str = "option=value, such as inter_weight=1"
) -> dict[str, str]:
    """`--set name=value` as a dict; MethodError for a word without `=`."""
    pairs: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name.strip():
            raise MethodError(f"{flag} expects {example}; found {word!r}")
        pairs[name.strip().replace("-", "_")] = value.strip()
    return pairs


def load_with(adapter: Path, options: RunOptions) -> "FewShotClassifier":
    """A saved adapter on the device, in the precision and on the copy of its backbone that the options name."""
    from daptune.classifier import load

    if options.batch_size is not None and options.batch_size < 1:
        raise DataError(f"--batch-size must be at least 1; found {options.batch_size}")
    classifier = load(adapter, options.backbone, precision=options.precision, device=options.device)
    classifier.batch_size = options.batch_size or classifier.batch_size
    return classifier
