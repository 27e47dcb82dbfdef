"""Options of the commands: field name = option, default = default, the text below = help.

Only light imports: `daptune fit --help` must not wait for torch.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from daptune.errors import DaptuneError, MethodError


def _shots(kind: Any, tokens: Sequence[Any]) -> int | str:
    text = tokens[0].value
    if text.lower() == "all":
        return "all"
    if not text.isdecimal() or int(text) < 1:
        raise DaptuneError(f"--shots must be a whole number of at least 1, or all; found {text!r}")
    return int(text)


Adapter = Annotated[Path, Parameter(help="Folder written by `daptune fit`, or `hf:user/name`.")]
Device = Annotated[str, Parameter(help="PyTorch device: `cpu`, `cuda`, `mps`.")]
AllowDownload = Annotated[
    bool,
    Parameter(help="Fetch the backbone that the adapter names if it is not on this machine; its maker chose the name."),
]
Json = Annotated[bool, Parameter(name="--json", help="Print the result as JSON.")]
MultiLabel = Annotated[
    bool, Parameter(help="Images have any number of labels, `a|b` in a table: each class is judged by itself, by mAP.")
]
NamesFile = Annotated[
    Path | None,
    Parameter(
        metavar="FILE",
        help='What the prompts call the classes: a CSV `folder,name` or a JSON `{"1": "pink primrose"}`. Several names '
        "of a class are averaged; answers keep the folders' names.",
    ),
]
Precision = Literal["auto", "fp32", "bf16", "fp16-faithful"]
RunPrecision = Literal["auto", "fp32", "bf16", "int8", "fp16-faithful"]
Engine = Literal["onnxruntime", "openvino"]
Shots = Annotated[
    int | str | None,
    Parameter(
        converter=_shots,
        metavar="K",
        help="Training images per class, or `all`; by default all, and 16 with `--preset paper`.",
    ),
]
SetOptions = Annotated[
    tuple[str, ...],
    Parameter(
        name="--set", metavar="OPTION=VALUE", help="Option of the method, e.g. `inter_weight=1`; repeat for more."
    ),
]
TrainOptions = Annotated[
    tuple[str, ...],
    Parameter(
        name="--train",
        metavar="NAME=VALUE",
        help="Setting of the training, any field of `TrainConfig`, e.g. `weight_decay=0.01`; repeat for more.",
    ),
]


@Parameter(name="*")
@dataclass(frozen=True)
class RunOptions:
    """Where the frozen CLIP runs."""

    device: Device = "cpu"
    precision: RunPrecision | None = None
    """Precision of the frozen CLIP. `auto` uses bf16 if the hardware supports it; a saved adapter keeps its own by
    default. `int8`: of exported models, with --engine openvino."""
    batch_size: int | None = None
    """Images per batch."""
    backbone: str | None = None
    """Current location of the adapter's backbone, if it differs from the recorded name."""
    allow_download: AllowDownload = False


@dataclass(frozen=True)
class _SampleOptions:
    """What `daptune fit` and `daptune tune` share: the method, its sample of images, and where it runs."""

    method: str = "dapt"
    """What to learn; `daptune methods` lists them. `auto` (of `fit`): chosen by cross-validation of the images."""
    backbone: str = "auto"
    """The frozen CLIP: `photo` or `tiny` (in the package; `auto` takes the one that suits the images),
    `ViT-B-16/openai`, `hf:org/repo`, a folder or a file."""
    names: NamesFile = None
    shots: Shots = None
    seed: int = 1
    """Random seed for the few-shot sample, the initial prompts and the order of training."""
    out: Path = Path("adapter")
    """Folder to write the adapter to; an existing adapter is replaced when the new one is complete."""
    set_options: SetOptions = ()
    train_options: TrainOptions = ()
    epochs: int | None = None
    """Passes over the images; without --shots, an epoch draws at most 16 images of each class."""
    lr: float | None = None
    """Peak learning rate."""
    batch_size: int | None = None
    """Images per batch."""
    precision: Precision = "auto"
    """Precision of the frozen CLIP; `auto` uses bf16 if the hardware supports it."""
    device: Device = "cpu"
    holdout: float = 0.2
    """Share of images held out for testing if the folder has no `test/`."""
    multi_label: MultiLabel = False
    json: Json = False


@Parameter(name="*")
@dataclass(frozen=True)
class FitOptions(_SampleOptions):
    """Options of `daptune fit`; fields with the name of a `TrainConfig` field go to the training."""

    minutes: float | None = None
    """With `--method auto`: time limit of the choice, 2 by default; the training of the chosen method comes on top."""
    start_from: Annotated[Path | None, Parameter(name="--from", metavar="ADAPTER")] = None
    """Initialise from this adapter's learned tensors (same method and backbone; classes may differ)."""
    unlabelled: Annotated[Path | None, Parameter(metavar="FOLDER")] = None
    """Images of these classes without labels: their answers teach the adapter too, if there are 8 or more."""
    class_weight: Annotated[str | None, Parameter(metavar="auto|FILE")] = None
    """Weights of the classes in the loss: `auto` by inverse frequency, or a CSV `class,weight` or JSON file."""
    accumulate: int | None = None
    """Batches per step (gradient accumulation); they share one pass of the text tower."""
    optimizer: Literal["adamw", "adam", "sgd"] | None = None
    """Optimizer."""
    min_crop: float | None = None
    """Smallest share of an image that a random crop keeps; 1: no crops."""
    flip: float | None = None
    """Probability of a left-right flip, e.g. 0.5 for photographs; by default 0."""
    views: int | None = None
    """Reuse this many augmented views per image, e.g. 8, instead of a new one each epoch; faster if only the text side
    learns."""
    augment_on: Literal["workers", "device"] | None = None
    """`device`: resize crops on the device instead of in the decoding threads; for a GPU that waits for the CPU."""
    memory: Literal["fast", "low"] | None = None
    """`low`: recompute activations of the image tower in the backward pass; allows a larger --batch-size."""
    compile: bool = False
    """Compile the towers' blocks first, as CUDA graphs on a GPU: takes half a minute or more, for long runs."""
    devices: int = 1
    """Number of processes on this machine that share each batch (one GPU each with `--device cuda`); also under
    torchrun."""
    tensorboard: Annotated[Path | None, Parameter(metavar="FOLDER")] = None
    """Write the curves of the run to this folder for TensorBoard."""
    preset: str | None = None
    """`paper`: the settings of each method's official code. `fast`: a short run from words (coop, dapt)."""
    dataset: str | None = None
    """With --preset: the benchmark data set whose settings to use, e.g. `eurosat`."""
    experiment: Literal["fewshot", "base2new", "cross"] = "fewshot"
    """With --preset: what is measured, all classes, classes left out, or other data sets; some methods' settings
    differ."""
    template: Annotated[tuple[str, ...], Parameter(metavar="TEXT")] = ()
    """Hand-written prompt of the zero-shot classifier, e.g. `a photo of a {}.`; repeat for more."""
    ensemble: Literal["auto", "none"] = "auto"
    """`auto` adds hand-written prompts and the training images to the answers of the learned prompts; `none` does not.
    `--preset paper` has none."""
    calibrate: Literal["auto", "none"] = "auto"
    """`auto` fits a temperature to validation images, if there are any, so that probabilities mean what they say;
    `none` does not. `--preset paper` has none."""
    select: Literal["last", "best_val"] | None = None
    """`last` keeps the last step, `best_val` the epoch with the best validation accuracy."""
    run_dir: Path | None = None
    """Folder for checkpoints and history; default: the adapter's folder plus `.run`."""
    cache_dir: Path | None = None
    """Folder that keeps decoded images for later runs, 20 GB at most; for images that are slow to read or decode."""
    resume: bool = False
    """Resume from the checkpoint of an interrupted run."""


@Parameter(name="*")
@dataclass(frozen=True)
class TuneOptions(_SampleOptions):
    """Options of `daptune tune`: some of `FitOptions`, and the extent of the search."""

    seed: int = 1
    """Random seed for the few-shot sample, as in `daptune fit`, and for the search."""
    out: Path = Path("daptune-tune")
    """Folder of the trials; existing trials of the same search count."""
    trials: int = 30
    """Number of settings to try, including the defaults."""
    minutes: float | None = None
    """Time limit in minutes."""
    folds: int = 3
    """Folds of the cross-validation."""
    lr: float | None = None
    """Keep this learning rate, and search the other settings."""
    epochs: int | None = None
    """Keep this number of passes over the images."""
    holdout: float = 0.2
    """Share of images that `daptune fit` holds out for testing if the folder has no `test/`; not used here."""

    def for_fit(self) -> FitOptions:
        """The options of `daptune fit` with the same values."""
        own = asdict(self)
        return FitOptions(**{name: own[name] for name in own if name not in ("out", "trials", "minutes", "folds")})


@Parameter(name="*")
@dataclass(frozen=True)
class CompareOptions:
    """Options of `daptune compare`: the methods, and some of `FitOptions`."""

    methods: Annotated[str | None, Parameter(metavar="A,B,C")] = None
    """Methods to compare, separated by commas; by default those that `--method auto` tries."""
    folds: int | None = None
    """Folds of the cross-validation; by default 5, or as many as the largest class has images."""
    minutes: float | None = None
    """Time limit in minutes: methods that do not fit into what is left are not tried. Default: none."""
    backbone: str = "auto"
    """The frozen CLIP: `photo` or `tiny` (in the package; `auto` takes the one that suits the images),
    `ViT-B-16/openai`, `hf:org/repo`, a folder or a file."""
    names: NamesFile = None
    shots: Shots = None
    seed: int = 1
    """Random seed for the few-shot sample, the folds, the initial prompts and the order of training."""
    train_options: TrainOptions = ()
    template: Annotated[tuple[str, ...], Parameter(metavar="TEXT")] = ()
    """Hand-written prompt, e.g. `a photo of a {}.`; repeat for more."""
    ensemble: Literal["auto", "none"] = "auto"
    """As in `daptune fit`."""
    precision: Precision = "auto"
    """Precision of the frozen CLIP; `auto` uses bf16 if the hardware supports it."""
    device: Device = "cpu"
    holdout: float = 0.2
    """Share of images that `daptune fit` holds out for testing if the folder has no `test/`; not used here."""
    cache_dir: Path | None = None
    """Folder that keeps decoded images for later runs, 20 GB at most."""
    multi_label: MultiLabel = False
    json: Json = False

    def for_fit(self) -> FitOptions:
        """The options of `daptune fit` with the same values."""
        own = asdict(self)
        return FitOptions("auto", **{name: own[name] for name in own if name not in ("methods", "folds", "minutes")})


@Parameter(name="*")
@dataclass(frozen=True)
class ImportOptions:
    """Options of `daptune import`."""

    method: str = "coop"
    """Method of the checkpoint: `coop`, `dapt` or `maple`."""
    backbone: str = "ViT-B-16/openai"
    """The frozen CLIP that it was trained on."""
    classes: Path | None = None
    """Text file with one class name per line in the order of the labels; checked against the checkpoint's own names."""
    dataset: str | None = None
    """Instead of --classes: the benchmark data set that it was trained on, read from --root."""
    root: Path | None = None
    """Folder of the data sets; by default $DAPTUNE_DATA, else ./data."""
    out: Path = Path("adapter")
    """Folder to write the adapter to."""
    set_options: Annotated[tuple[str, ...], Parameter(name="--set", metavar="OPTION=VALUE")] = ()
    """Option of the method that the file does not contain, e.g. `class_position=middle`; repeat for more."""
    precision: Precision = "auto"
    """Precision of the frozen CLIP; the official code ran in fp16."""
    device: Device = "cpu"
    json: Json = False


@Parameter(name="*")
@dataclass(frozen=True)
class BenchOptions:
    """Options of `daptune bench`."""

    out: Path | None = None
    """Folder of the results; by default `runs/` followed by the plan's name."""
    executor: Literal["local", "ray"] = "local"
    """Processes of this machine, or a Ray cluster."""
    ray_address: str | None = None
    """Address of the Ray cluster; default: this machine's cluster, or a new one."""
    processes: int | None = None
    """Number of processes on this machine; by default as many as cores and memory allow."""
    data_root: Annotated[Path | None, Parameter(name=("--data-root", "--root"))] = None
    """Folder of the benchmark data sets; by default $DAPTUNE_DATA, else `data`."""
    device: str = "cpu"
    """PyTorch device: `cpu`, `cuda` (one job per GPU), `mps`."""
    retry: bool = False
    """Also run the jobs that failed before."""
    listing: Annotated[bool, Parameter(name="--list")] = False
    """List what is done, failed and missing, and run nothing."""
    json: Json = False


@Parameter(name="*")
@dataclass(frozen=True)
class ReportOptions:
    """Options of `daptune report`."""

    out: Path = Path("report.html")
    """The report's HTML file."""
    images: Path | None = None
    """For one adapter, the folder it was trained on, or other labelled images: adds mistakes, calibration, maps and
    training labels to check."""
    focus: str | None = None
    """For benchmark runs: method to compare the others with; default `dapt`."""
    data_root: Path | None = None
    """For benchmark runs: folder of the benchmark data sets, to draw maps; as for `daptune bench`."""
    json: Json = False


@Parameter(name="*")
@dataclass(frozen=True)
class PredictOptions:
    """Options of `daptune predict`."""

    top_k: int = 1
    """Classes to list per image, most likely first."""
    reject: float | None = None
    """Share of known images that may be called `unknown`, e.g. 0.05, so that images of no class are."""
    sets: float | None = None
    """List the classes that may be true, so that the truth is missing for this share of images, e.g. 0.1."""
    scores: Literal["softmax", "sigmoid"] = "softmax"
    """`sigmoid`, of an adapter on a SigLIP: judge each class by itself; an image may show several, or none."""
    transductive: bool = False
    """Answer to all images as one set, each helped by those like it; rows come once all are read."""
    format: Literal["jsonl", "csv", "parquet", "fiftyone", "labelstudio"] | None = None
    """JSON lines, CSV or Parquet, or JSON that FiftyOne or Label Studio imports; default: the suffix of --out (.jsonl,
    .csv, .parquet), else JSON lines."""
    out: Path | None = None
    """Output file, written only when complete; repeat the same command to resume. Default: standard output."""
    shard: Annotated[str | None, Parameter(metavar="K/N")] = None
    """Only part K of N, e.g. `3/16`: images K, K + N, K + 2 N and so on, for N processes in parallel."""
    every: Annotated[str | None, Parameter(metavar="TIME")] = None
    """Read films too: a frame every so often, e.g. `1s`, `500ms`, `2min`; rows are named `film.mp4@12.000s`."""
    boxes: Path | None = None
    """Label the boxes of a detector: a CSV file with the columns image (relative to the folder), x0, y0, x1, y1."""
    executor: Literal["local", "ray"] = "local"
    """This process, or the tasks of a Ray cluster (`RAY_ADDRESS`) whose nodes see the same paths."""
    scaled_decoding: bool = False
    """Decode large JPEGs at 1/2, 1/4 or 1/8 of their size: faster, with slightly different pixels."""
    engine: Engine | None = None
    """What runs an exported model (.onnx): `onnxruntime`, or `openvino`, twice as fast on processors with bfloat16."""
    json: Annotated[bool, Parameter(name="--json")] = False
    """The same as `--format jsonl`."""


@Parameter(name="*")
@dataclass(frozen=True)
class SuggestOptions:
    """Options of `daptune suggest`."""

    number: Annotated[int, Parameter(name=("-n", "--number"))] = 20
    """How many images."""
    out: Path | None = None
    """Instead of a list: a new folder of links to the images, or a page with them, such as `next.html`."""
    scaled_decoding: bool = False
    """As for `daptune predict`."""
    json: Json = False


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
