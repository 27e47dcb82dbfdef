"""Progress bars and the card of a fit: shared by `fit`, `demo`, `eval`."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.markup import escape

from daptune.choose.comparison import NORMAL, RankedRow, Row
from daptune.classifier import FewShotClassifier
from daptune.cli.console import percent, print_table, progress, say, shapes_text
from daptune.evaluate import BATCH
from daptune.methods import Method
from daptune.names import own_names
from daptune.train import Progress, TrainConfig

UNEVEN = 4
"""Ratio of the largest to the smallest class from which `fit` advises weights."""
VIEWS, LARGE = 4, 100_000_000
"""Views that `fit` advises where a backbone of so many bytes encodes more; docs/waiting.md has what they cost."""


@contextmanager
def training_bar(classifier: FewShotClassifier, *, warn: bool = True) -> Iterator[Callable[[Progress | str], None]]:
    """A bar: `progress` (losses, accuracy, time left) and `tell` of `classifier.fit`; `warn` shows what is logged."""
    with progress(steps=False, warn=warn) as bar:
        task = bar.add_task(f"{classifier.method}: reading images", total=None, note="")

        def show(state: Progress | str) -> None:
            if isinstance(state, str):
                bar.update(task, description=f"{classifier.method}: {state}")
                return
            name = classifier.method_.name
            room = max(bar.console.width - len(name) - 28, 12) if bar.console.is_terminal else None
            bar.update(
                task,
                description=f"{name} {state.epoch}/{state.epochs}" if state.epoch else f"{name}: text prompt",
                total=state.steps,
                completed=state.step,
                note=_terms(state)[:room],
            )

        yield show


@contextmanager
def measuring(label: str, images: int, batch_size: int = BATCH) -> Iterator[Callable[[], object]]:
    """A bar of measured batches; yields the function to call after each batch."""
    with progress(steps=True) as bar:
        task = bar.add_task(f"measuring {label}", total=-(-images // batch_size), note="")
        yield lambda: bar.advance(task)


def method_card(classifier: FewShotClassifier, held_out: str) -> dict[str, str]:
    """Method, backbone and images of a fit: shown before training, so that mistakes are seen early."""
    method, backbone, table = classifier.method_, classifier.backbone_, classifier.train_table_
    config = classifier.train_config_
    learned = [(name, value) for name, value in method.named_parameters() if value.requires_grad]
    shapes = shapes_text({name: value.shape for name, value in learned})
    frozen = sum(p.numel() * p.element_size() for p in backbone.clip.parameters())
    counts = table.counts()
    names = ", ".join(table.class_names[:6]) + (", ..." if len(table.class_names) > 6 else "")
    spread = f"{counts.min()}" if counts.min() == counts.max() else f"{counts.min()} to {counts.max()}"
    card = {
        "method": f"{method.title}, {method.year}",
        "backbone": f"{backbone.name}, {frozen / 1e6:.0f} MB frozen in {backbone.precision} on {backbone.device}, "
        f"sha256 {backbone.sha256[:12]}",
        **({"chosen": classifier.backbone_why_} if classifier.backbone_why_ else {}),
        "learns": f"{sum(v.numel() for _, v in learned):,} parameters: {shapes}" if learned else "nothing by gradient",
        "prompt": prompt_text(method),
        "classes": f"{len(table.class_names)}: {names}",
        **({} if own_names(method.names) else {"names": names_text(method.names)}),
        "images": f"{len(table)} to learn from, {spread} per class, seed {classifier.seed}, "
        f"fingerprint {table.fingerprint()[:12]}",
        "held out": held_out,
    }
    if table.multi_label:
        none = int((~table.labels.any(axis=1)).sum())
        card["labels"] = f"{int(counts.sum())} on {len(table)} images, {none} of them without any; each class by itself"
        card["ensemble"] = "none, since it is of images with one class"
        if classifier.val_table_ is None:
            card["thresholds"] = "0.5; validation images (split val) would set that of each class, for a better F1"
    if classifier.left_out_:
        whole = len(table) + classifier.left_out_
        card["left out"] = f"{classifier.left_out_:,} of {whole:,} training images; --shots all learns from them too"
    if classifier.class_weight is not None:
        card["class weights"] = weights_text(classifier)
    elif method.weighs_classes and counts.max() >= UNEVEN * counts.min():
        card["uneven"] = "large classes count more; --class-weight auto makes them count alike"
    if learned:
        card["training"] = training_text(config)
        if method.trains_on_features and frozen >= LARGE and (advice := sooner(config)):
            card["sooner"] = advice
    return card


def training_text(config: TrainConfig) -> str:
    """The settings of a run in a line; `config` is resolved."""
    first = f"{config.text_steps} steps of the text prompt, then " if config.text_steps else ""
    length = f"{first}{config.epochs} epochs{_drawn(config)}"
    schedule = config.schedule.replace("_", " ")
    return f"{config.optimizer}, learning rate {config.lr:g}, {length}, batches of {config.batch_size}, {schedule}"


def sooner(config: TrainConfig) -> str:
    """Advice for a method that learns from features; "" where a run does not encode many views of each image."""
    epochs, cropped = int(config.epochs or 0), config.min_crop < 1 or config.flip > 0
    if config.views is not None or not cropped or epochs < 2 * VIEWS:
        return ""
    return f"--views {VIEWS} encodes {VIEWS} views of each image once, in place of a new one in each of {epochs} epochs"


def weights_text(classifier: FewShotClassifier) -> str:
    """The extreme weights of the classes in the loss."""
    method = classifier.method_
    if method.class_weight is None:
        return "none"
    by_weight = sorted(zip(method.class_weight.tolist(), method.class_names, strict=True))
    (low, first), (high, last) = by_weight[0], by_weight[-1]
    return f"{low:.3g} ({first}) to {high:.3g} ({last}), mean 1 over the images"


def _drawn(config: TrainConfig) -> str:
    if config.epoch_shots is None:
        return "" if config.sampling == "shuffled" else " (classes drawn evenly)"
    each = f" of at most {config.epoch_shots} images a class"
    return f"{each} (classes drawn evenly)" if config.sampling == "balanced" else each


def names_text(names: Mapping[str, Sequence[str]]) -> str:
    """What the prompts call the first classes."""
    shown = [f"{label} is {' or '.join(own[:3])}" for label, own in list(names.items())[:3]]
    return ", ".join(shown) + (", ..." if len(names) > 3 else "")


def print_trials(found: Mapping[str, Any], *, intervals: bool = False) -> None:
    """The table of a `Comparison` or of its choice, as JSON values; with `intervals` of 95 % and more figures."""
    if left_out := found.get("left_out"):
        say(f"Left out, since they learn one class per image: {', '.join(left_out)}.")
    notes = {row.get("note") for row in found["rows"]}
    if len(notes) == 1 and found["best"] is None:
        say(f"[bold]nothing was compared[/bold]  {escape(notes.pop())}")
        return
    ranked = any(RankedRow.figure in row for row in found["rows"])
    columns = ["method", "", "mAP" if ranked else "accuracy", "seconds"]
    if intervals:
        columns[3:3] = ["difference to the best", "nll"]
    cells = []
    for row in found["rows"]:
        if "near" not in row:
            cells.append([row["method"], _verdict(row, found)] + [""] * (len(columns) - 2))
            continue
        error = (NORMAL if intervals else 1) * row["standard_error"]
        figures = [f"{percent(row[(RankedRow if ranked else Row).figure])} ± {100 * error:.1f}"]
        if intervals:
            low, high = (100 * end for end in row["interval"])
            own = row["method"] == found["best"]
            figures += ["" if own else f"{100 * row['difference']:.1f} ({low:.1f} to {high:.1f})", f"{row['nll']:.2f}"]
        cells.append([row["method"], _verdict(row, found), *figures, f"{row['seconds']:.1f}"])
    spread = "a 95 % interval" if intervals else "a standard error"
    print_table(f"{found['measured']}; ± is {spread}", columns, cells, left=2)


def _verdict(row: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """What a row of `print_trials` is in the comparison: a word for the second column."""
    if "near" not in row:
        return str(row["note"])
    words = ["chosen"] if row["method"] == found.get("method") else []
    if row["method"] == found["best"]:
        words.append("best")
    elif row["near"] and not words:
        words.append("near the best")
    return ", ".join(words)


def prompt_text(method: Method) -> str:
    """The text tower's input for a class, as shown to the user."""
    config: Any = method.config
    if hasattr(config, "text_tokens"):
        context = getattr(config, "context_init", "") or f"[{config.text_tokens} learned tokens]"
        kind = " (one for each class)" if getattr(config, "class_specific", False) else ""
        position = getattr(config, "class_position", "end")
        places = {
            "end": f"{context} <class>.",
            "front": f"<class> {context}.",
            "middle": f"[half of] {context} <class> [other half].",
        }
        return places.get(position, f"{context} with <class>, in {position} order.") + kind
    if hasattr(config, "templates"):
        if config.templates:
            return " | ".join(config.templates).replace("{}", "<class>")
        parts = [
            f"the template of {config.dataset}" if getattr(config, "dataset", "") else "",
            "seven templates averaged" if getattr(config, "ensemble", False) else "",
        ]
        return " and ".join(filter(None, parts)) or "a photo of a <class>."
    return "none: the text tower is not used"


def _terms(state: Progress) -> str:
    """Time left, accuracy and losses, most important first: a narrow terminal cuts off the rest."""
    minutes, seconds = divmod(round(state.seconds_left), 60)
    words = [f"{minutes}:{seconds:02d} left"]
    for name, value in (("accuracy", state.accuracy), ("validation", state.val_accuracy)):
        if value is not None:
            words.append(f"{name} {100 * value:.0f} %")
    words += [f"{name} {value:.3g}" for name, value in state.losses.items() if name != "total"]
    return ", ".join(words)
