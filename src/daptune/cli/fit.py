"""`daptune fit`: a folder of images -> an adapter, with the zero-shot classifier measured beside it."""

import shlex
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.markup import escape

from daptune.adapter.record import check_target
from daptune.choose.choice import AUTO as CHOOSE
from daptune.classifier import FewShotClassifier
from daptune.cli.console import (
    alive,
    emit_json,
    note,
    percent,
    print_pairs,
    print_table,
    say,
    silent,
    size_text,
    warned,
    warnings_shown,
)
from daptune.cli.fitting import measuring, method_card, print_trials, training_bar
from daptune.cli.options import FitOptions, key_values
from daptune.cli.runs import end_run, is_over, note_start, run_dir_of, saved_before
from daptune.data.benchmarks.registry import canonical
from daptune.data.cache import Decoder
from daptune.data.name_lists import read_names
from daptune.data.table import ImageTable
from daptune.data.weights import AUTO, read_class_weights
from daptune.errors import DataError, MethodError, TrainingError
from daptune.evaluate import judge_by_images, measure_beside, zero_shot
from daptune.measured import Measured
from daptune.methods import get_method
from daptune.methods.options import parse_options
from daptune.presets import EXPERIMENTS, method_names
from daptune.suitability import unsuited, unsuited_for
from daptune.train import TrainConfig
from daptune.train.folder import run_folder
from daptune.train.parallel import Ranks, joined, launch
from daptune.train.tracking import TensorBoard, each

GENTLER = "a gentler start (--set context_init='a photo of a' --lr 0.001)"
"""Best with one image per class in docs/defaults.md."""
SHOWN = 3
"""Classes listed at each end."""


def run(folder: Path, options: FitOptions) -> int:
    """Run the command. Raises DaptuneError for bad input, Interrupted when stopped."""
    if options.devices < 1:
        raise DataError(f"--devices must be at least 1; found {options.devices}")
    if is_over(folder, options):
        return 0
    if options.devices > 1:
        with silent():  # the first of the new processes says what is being done
            return launch(options.devices, partial(run, folder, replace(options, devices=1)))
    with joined(options.device) as device, alive("fit"):
        return _run(folder, replace(options, device=device))


def _run(folder: Path, options: FitOptions) -> int:
    run_dir = run_dir_of(options, out := check_target(options.out))
    check_share(options.holdout)
    classifier, decoder = make_classifier(options), Decoder(cache_dir=options.cache_dir)
    how: dict[str, Any] = {"run_dir": run_dir, "resume": options.resume, "decoder": decoder}
    fit = partial(classifier.fit, folder, unlabelled=options.unlabelled, holdout=options.holdout, **how)
    if not Ranks().first:  # other ranks only train
        fit()
        return 0
    card, began = dict[str, str](), 0.0

    def before(ready: FewShotClassifier) -> None:
        nonlocal began
        table = ready.test_table_
        card.update(method_card(ready, "none" if table is None else f"{len(table)} images ({ready.test_name_})"))
        if not options.json:
            if (choice := ready.choice_) is not None:
                print_trials(choice)
                say(f"[bold]chosen[/bold]  {escape(choice['why'])}\n")
            print_pairs(card)
        began = time.monotonic()

    with run_folder(run_dir), warnings_shown() as told:
        note_start(run_dir, options)
        with training_bar(classifier) as show, _curves(classifier, options) as curves:
            fit(progress=each(show, *curves), tell=show, before=before)
        seconds = time.monotonic() - began
        classifier.save(out)
        with saved_before(out):
            rows, advice = _measure(classifier, folder, options, decoder)
            _note_measured(classifier, rows, seconds, options)
            classifier.save(out)
        end_run(run_dir, out, folder, options)
    size = sum(path.stat().st_size for path in out.iterdir() if path.is_file())
    warning = below_zero_shot(classifier, rows)
    if options.json:
        written: dict[str, Any] = {"adapter": str(options.out), "bytes": size, "card": card, "advice": advice}
        more = warned(told, warning, advice) | ({} if classifier.choice_ is None else {"chosen": classifier.choice_})
        emit_json(written | more | {"ensemble": classifier.record_.ensemble} | classifier.record_.metrics)
        return 0
    if (table := classifier.test_table_) is None:
        note("daptune: no hold-out set, so nothing was evaluated; add a test/ folder or more images")
    else:
        cells = [(name, *map(percent, row.shown.values())) for name, row in rows.items()]
        title = f"on {len(table)} held-out images ({classifier.test_name_})"
        print_table(title, ("method", *next(iter(rows.values())).shown), cells)
        _print_extremes(table, rows)
    for text in filter(None, (warning, advice)):
        note(f"daptune: warning: {text}")
    last = {"time to learn": f"{seconds:.1f} s", "adapter": f"{options.out} ({size_text(size)})"}
    print_pairs(_after_training(classifier) | last)
    shown = shlex.quote(str(options.out))
    say("\nNext:")
    say(f"  daptune predict {shown} PICTURES...   label images")
    say(f"  daptune eval {shown} FOLDER           measure on other labelled images")
    say(f"  daptune show {shown}                  what the adapter holds")
    return 0


@contextmanager
def _curves(classifier: FewShotClassifier, options: FitOptions) -> Iterator[list[TensorBoard]]:
    """The writer of the curves that are asked for; it has all epochs at the end of the block."""
    if options.tensorboard is None:
        yield []
        return
    with TensorBoard(options.tensorboard) as curves:
        yield [curves]
        curves.finish(classifier.history_)


def check_share(holdout: float) -> None:
    """Raise DataError unless --holdout is a share of images."""
    if not 0 <= holdout < 1:
        raise DataError(f"--holdout must be a share between 0 and 1, such as 0.2; found {holdout}")


def make_classifier(options: FitOptions) -> FewShotClassifier:
    """The estimator that the options describe."""
    method_options: dict[str, Any] = dict(key_values(options.set_options))
    auto = options.method == CHOOSE
    if not auto and options.minutes is not None:
        raise MethodError("--minutes limits the choice of --method auto; leave it out where a method is named")
    if not auto and options.template and "templates" in get_method(options.method).config_class.__dataclass_fields__:
        method_options["templates"] = options.template
    flags = {field.name: getattr(options, field.name, None) for field in fields(TrainConfig)}
    training = {name: value for name, value in flags.items() if value is not None} | _train_options(options)
    if options.preset is None and (options.dataset, options.experiment) != (None, EXPERIMENTS[0]):
        raise MethodError("--dataset and --experiment choose among the settings of a preset; add --preset paper")
    return FewShotClassifier(
        method=CHOOSE if auto else get_method(options.method).name,
        minutes=FewShotClassifier.minutes if options.minutes is None else options.minutes,
        backbone=options.backbone,
        class_names=None if options.names is None else read_names(options.names),
        shots=options.shots,
        seed=options.seed,
        method_options=method_options,
        train_options=training,
        ensemble=options.ensemble,
        templates=options.template,
        class_weight=_class_weight(options.class_weight),
        calibrate=options.calibrate,
        multi_label=options.multi_label,
        start_from=options.start_from,
        preset=options.preset,
        dataset=None if options.dataset is None else canonical(options.dataset),
        experiment=options.experiment,
        precision=options.precision,
        device=options.device,
        cache_dir=options.cache_dir,
    )


def _class_weight(given: str | None) -> str | dict[str, float] | None:
    """The value of --class-weight, read from its file."""
    return given if given in (None, AUTO) else read_class_weights(Path(given).expanduser())


def _train_options(options: FitOptions) -> dict[str, Any]:
    """The values of --train in the fields' types. Raises TrainingError for a field that is also set by a flag."""
    words = key_values(options.train_options, "--train", "name=value, such as weight_decay=0.01")
    training = parse_options("training", TrainConfig, words, TrainingError)
    for name in training:
        if getattr(options, name, None) != getattr(FitOptions, name, None):
            raise TrainingError(f"--train {name} and --{name.replace('_', '-')} set the same; leave one of them out")
    return training


def below_zero_shot(classifier: FewShotClassifier, rows: Mapping[str, Measured]) -> str | None:
    """The warning for a method that is less accurate than zero-shot CLIP; None if it is not."""
    method = classifier.method_
    if "zero_shot" not in rows or rows[method.name].headline >= rows["zero_shot"].headline:
        return None
    tuned, plain = (percent(rows[name].headline) for name in (method.name, "zero_shot"))
    advice = ["more images of each class"]
    alone = method.ensemble is None
    if alone and method.joins_ensemble and not classifier.multi_label:
        advice.append("--ensemble auto" if classifier.preset != "paper" else "no --preset paper")
    elif alone and classifier.preset is None and method.name in method_names():
        advice.append("--preset paper")
    advice.append("--method zero_shot" if classifier.method == CHOOSE else "--method auto")
    if alone and getattr(method.config, "context_init", None) == "":
        advice.append(GENTLER)
    return (
        f"{method.name} reaches {tuned} on the held-out images, zero_shot {plain}: zero-shot CLIP is better here. "
        f"Try: {'; '.join(advice)}."
    )


def _other_backbone(
    classifier: FewShotClassifier, rows: Mapping[str, Measured], folder: Path, options: FitOptions, decoder: Decoder
) -> str | None:
    """The line on a backbone that does badly, by the held-out images; without them, by the training images."""
    method, more = classifier.method_, shlex.join(["daptune", "report", str(options.out), "--images", str(folder)])
    if classifier.multi_label:
        return None
    if "zero_shot" not in rows:
        table = classifier.train_table_
        templates, dataset = options.template, options.dataset
        return unsuited_for(method, table, None, templates=templates, dataset=dataset, decoder=decoder, more=more)
    plain, encode = rows["zero_shot"], method.backbone.tokenizer.spelling
    own = rows[method.name].accuracy
    images = len(plain.labels)
    return unsuited(method.backbone.name, method.names, images, plain.accuracy, own, encode=encode, more=more)


def _after_training(classifier: FewShotClassifier) -> dict[str, str]:
    """What was added to the learned prompts, in words."""
    added = {"ensemble": _ensemble_text(classifier)} if classifier.record_.ensemble else {}
    if (others := classifier.unlabelled_) is not None:
        added["unlabelled"] = f"learned from {others.images:,} images without labels"
    if (calibration := classifier.calibration_) is not None:
        added["temperature"] = calibration.text
    return added


def _ensemble_text(classifier: FewShotClassifier) -> str:
    text = classifier.record_.ensemble_text
    if classifier.train_table_.counts().max() == 1 and classifier.val_table_ is None:
        text += " (the last two are fixed: one image of a class cannot judge them)"
    return text


def _print_extremes(table: ImageTable, rows: Mapping[str, Measured]) -> None:
    """Worst and best classes of the last row, with the figures of the other rows beside."""
    counts = table.counts()
    last = list(rows.values())[-1].per_class
    order = [int(place) for place in last.argsort(kind="stable") if last[place] == last[place]]  # NaN: no images
    if len(order) <= 2 * SHOWN:
        ends = {order[-1]: "best", order[0]: "worst"}
        chosen = [(place, ends.get(place, "")) for place in order]
    else:
        chosen = [(p, "worst") for p in order[:SHOWN]] + [(p, "best") for p in order[-SHOWN:]]
    cells = [
        (
            table.class_names[place],
            word,
            counts[place],
            *(percent(float(row.per_class[place])) for row in rows.values()),
        )
        for place, word in chosen
    ]
    title = "by class" if not table.multi_label else f"{rows[next(iter(rows))].by_class} by class"
    print_table(title, ("class", "", "images", *rows), cells, left=2)


def _measure(
    classifier: FewShotClassifier, folder: Path, options: FitOptions, decoder: Decoder
) -> tuple[dict[str, Measured], str | None]:
    """Figures by method, zero-shot first, none without held-out images; and the line on a backbone that does badly."""
    method, table, rows = classifier.method_, classifier.test_table_, dict[str, Measured]()
    baseline = zero_shot(classifier.backbone_, method.names, options.template, options.dataset)
    try:
        baseline.text_features()
    except MethodError as error:  # the method itself says less, or nothing, to the text tower
        note(f"daptune: zero-shot CLIP is left out of the comparison: {error}")
        baseline = method
    if table is not None:
        if classifier.multi_label and baseline is not method:
            judge_by_images(baseline, classifier.train_table_, classifier.val_table_, decoder)
        with measuring(method.name, len(table)) as tick:
            measured = partial(measure_beside, temperature=classifier.record_.temperature, decoder=decoder)
            rows = measured(baseline, method, table, after_batch=tick)
    return rows, None if baseline is method else _other_backbone(classifier, rows, folder, options, decoder)


def _note_measured(
    classifier: FewShotClassifier, rows: Mapping[str, Measured], seconds: float, options: FitOptions
) -> None:
    """Record the figures, and what `daptune report` needs to measure again."""
    data, metrics = classifier.record_.data, classifier.record_.metrics
    if options.template:
        data["templates"] = list(options.template)
    if options.dataset is not None:
        data["dataset"] = options.dataset
    metrics["seconds"] = round(seconds, 2)
    if (table := classifier.test_table_) is not None:
        figures = {name: row.to_json(table.class_names) for name, row in rows.items()}
        metrics["held_out"] = {"split": classifier.test_name_, "images": len(table)} | figures
