"""Fitting and measuring with a progress bar, the card before and the tables after: shared by `fit`, `demo`, `eval`."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from daptune.classifier import FewShotClassifier
from daptune.cli.console import percent, print_table, progress, shapes_text
from daptune.evaluate import BATCH, Measured
from daptune.methods import Method
from daptune.train import Progress

SHOWN = 3
"""Classes named at each end of the list."""


@contextmanager
def training_bar(classifier: FewShotClassifier, *, warn: bool = True) -> Iterator[Callable[[Progress], None]]:
    """A bar of losses, accuracy and time left: the `progress` of `classifier.fit`; `warn` shows what is logged."""
    with progress(steps=False, warn=warn) as bar:
        task = bar.add_task(f"{classifier.method}: reading images", total=None, note="")

        def show(state: Progress) -> None:
            bar.update(
                task,
                description=f"{classifier.method} {state.epoch}/{state.epochs}",
                total=state.steps,
                completed=state.step,
                note=_terms(state)[: max(bar.console.width - len(classifier.method) - 28, 12)],
            )

        yield show


@contextmanager
def measuring(label: str, images: int, batch_size: int = BATCH) -> Iterator[Callable[[], object]]:
    """A bar of the batches that are measured; what it gives is called after each."""
    with progress(steps=True) as bar:
        task = bar.add_task(f"measuring {label}", total=-(-images // batch_size), note="")
        yield lambda: bar.advance(task)


def method_card(classifier: FewShotClassifier, held_out: str) -> dict[str, str]:
    """What will be learned from what: shown before training so that a mistake is seen before the time is spent."""
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
        "learns": f"{sum(v.numel() for _, v in learned):,} numbers: {shapes}" if learned else "nothing by gradient",
        "prompt": prompt_text(method),
        "classes": f"{len(table.class_names)}: {names}",
        "images": f"{len(table)} to learn from, {spread} a class, seed {classifier.seed}, "
        f"fingerprint {table.fingerprint()[:12]}",
        "held out": held_out,
    }
    if learned:
        card["training"] = (
            f"{config.optimizer}, learning rate {config.lr:g}, {config.epochs} epochs, batches of "
            f"{config.batch_size}, {config.schedule.replace('_', ' ')}"
        )
    return card


def prompt_text(method: Method) -> str:
    """What the text tower reads for a class, in a user's words."""
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


def print_comparison(title: str, rows: Mapping[str, Measured]) -> None:
    """Accuracy and macro-F1 of several methods on the same images."""
    cells = [(name, percent(row.accuracy), percent(row.macro_f1)) for name, row in rows.items()]
    print_table(title, ("method", "accuracy", "macro-F1"), cells)


def print_extremes(class_names: Sequence[str], counts: Sequence[int], rows: Mapping[str, Measured]) -> None:
    """The classes that the last of `rows` knows worst and best, with the others' figures beside."""
    last = list(rows.values())[-1].per_class
    order = [int(place) for place in last.argsort(kind="stable") if last[place] == last[place]]  # NaN: no images
    if len(order) <= 2 * SHOWN:
        ends = {order[-1]: "best", order[0]: "worst"}
        chosen = [(place, ends.get(place, "")) for place in order]
    else:
        chosen = [(p, "worst") for p in order[:SHOWN]] + [(p, "best") for p in order[-SHOWN:]]
    cells = [
        (class_names[place], word, counts[place], *(percent(float(row.per_class[place])) for row in rows.values()))
        for place, word in chosen
    ]
    print_table("by class", ("class", "", "images", *rows), cells, left=2)


def print_classes(class_names: Sequence[str], counts: Sequence[int], measured: Measured) -> None:
    """Every class that has images, worst first."""
    order = [int(p) for p in measured.per_class.argsort(kind="stable") if counts[p]]
    cells = [(class_names[p], counts[p], percent(float(measured.per_class[p]))) for p in order]
    print_table("by class, worst first", ("class", "images", "accuracy"), cells)


def _terms(state: Progress) -> str:
    """Time left, accuracy and losses; what a narrow terminal cuts off comes last."""
    minutes, seconds = divmod(round(state.seconds_left), 60)
    words = [f"{minutes}:{seconds:02d} left"]
    for name, value in (("accuracy", state.accuracy), ("validation", state.val_accuracy)):
        if value is not None:
            words.append(f"{name} {100 * value:.0f} %")
    words += [f"{name} {value:.3g}" for name, value in state.losses.items() if name != "total"]
    return ", ".join(words)
