"""`daptune fit`: a folder of images -> an adapter, with the zero-shot classifier measured beside it."""

import shlex
import time
from collections.abc import Mapping
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from daptune.adapter.record import check_target
from daptune.classifier import FewShotClassifier
from daptune.cli.console import emit_json, note, percent, print_pairs, say, size_text, warnings_shown
from daptune.cli.fitting import measuring, method_card, print_comparison, print_extremes, training_bar
from daptune.cli.options import FitOptions, key_values
from daptune.data.cache import Decoder
from daptune.errors import DataError, MethodError, TrainingError
from daptune.evaluate import Measured, measure_beside, zero_shot
from daptune.methods import get_method
from daptune.methods.options import parse_options
from daptune.presets import method_names
from daptune.train import TrainConfig
from daptune.train.checkpoint import FILE_NAME
from daptune.train.parallel import Ranks, joined, launch

GENTLER = "a gentler start (--set context_init='a photo of a' --lr 0.001)"
"""What served one image a class best in docs/defaults.md."""
SAFER = ("lp_pp", "tip_adapter")
"""Methods that hold on to zero-shot CLIP's own answer."""


def run(folder: Path, options: FitOptions) -> int:
    """Do it; raises DaptuneError for bad input, Interrupted when stopped."""
    if options.devices < 1:
        raise DataError(f"--devices must be at least 1; found {options.devices}")
    if options.devices > 1:
        return launch(options.devices, partial(run, folder, replace(options, devices=1)))
    with joined(options.device) as device:
        return _run(folder, replace(options, device=device))


def _run(folder: Path, options: FitOptions) -> int:
    out = check_target(options.out)
    run_dir = (options.run_dir or out.with_name(out.name + ".run")).expanduser()
    if not 0 <= options.holdout < 1:
        raise DataError(f"--holdout must be a part between 0 and 1, such as 0.2; found {options.holdout}")
    classifier, decoder = make_classifier(options), Decoder(cache_dir=options.cache_dir)
    fit = partial(
        classifier.fit, folder, holdout=options.holdout, run_dir=run_dir, resume=options.resume, decoder=decoder
    )
    if not Ranks().first:  # it helps to train, and that is all
        fit()
        return 0
    card: dict[str, str] = {}
    began = 0.0

    def before(ready: FewShotClassifier) -> None:
        nonlocal began
        table = ready.test_table_
        card.update(method_card(ready, "none" if table is None else f"{len(table)} images ({ready.test_name_})"))
        if not options.json:
            print_pairs(card)
        began = time.monotonic()

    with warnings_shown():
        with training_bar(classifier) as show:
            fit(progress=show, before=before)
        seconds = time.monotonic() - began
        rows = _measure(classifier, options, decoder)
    _note_measured(classifier, rows, seconds, options)
    folder_out = classifier.save(out)
    (run_dir / FILE_NAME).unlink(missing_ok=True)  # finished: the history stays, the next fit begins anew
    size = sum(path.stat().st_size for path in folder_out.iterdir() if path.is_file())
    warning = below_zero_shot(classifier, rows)
    if options.json:
        written = {"adapter": str(options.out), "bytes": size, "card": card, "warning": warning}
        emit_json(written | classifier.record_.metrics)
        return 0
    if (table := classifier.test_table_) is None:
        note("daptune: no images were held out, so nothing was measured; give a test/ folder or more images")
    else:
        print_comparison(f"on {len(table)} held-out images ({classifier.test_name_})", rows)
        print_extremes(table.class_names, table.counts().tolist(), rows)
    if warning is not None:
        note(f"daptune: warning: {warning}")
    print_pairs({"time to learn": f"{seconds:.1f} s", "adapter": f"{options.out} ({size_text(size)})"})
    shown = shlex.quote(str(options.out))
    say("\nNext:")
    say(f"  daptune predict {shown} PICTURES...   label images")
    say(f"  daptune eval {shown} FOLDER           measure on other labelled images")
    say(f"  daptune show {shown}                  what the adapter holds")
    return 0


def make_classifier(options: FitOptions) -> FewShotClassifier:
    """The estimator that the options describe."""
    method_options: dict[str, Any] = dict(key_values(options.set_options))
    if options.template and "templates" in get_method(options.method).config_class.__dataclass_fields__:
        method_options["templates"] = options.template
    flags = {field.name: getattr(options, field.name, None) for field in fields(TrainConfig)}
    training = {name: value for name, value in flags.items() if value is not None} | _train_options(options)
    if options.dataset is not None and options.preset is None:
        raise MethodError("--dataset chooses among the settings of a preset; add --preset paper")
    return FewShotClassifier(
        method=options.method,
        backbone=options.backbone,
        shots=options.shots,
        seed=options.seed,
        method_options=method_options,
        train_options=training,
        start_from=options.start_from,
        preset=options.preset,
        dataset=options.dataset,
        precision=options.precision,
        device=options.device,
        cache_dir=options.cache_dir,
    )


def _train_options(options: FitOptions) -> dict[str, Any]:
    """What --train gives, in the fields' types. Raises TrainingError for a field that stands in a flag too."""
    words = key_values(options.train_options, "--train", "name=value, such as weight_decay=0.01")
    training = parse_options("training", TrainConfig, words, TrainingError)
    for name in training:
        if getattr(options, name, None) != getattr(FitOptions, name, None):
            raise TrainingError(f"--train {name} and --{name.replace('_', '-')} set the same; leave one of them out")
    return training


def below_zero_shot(classifier: FewShotClassifier, rows: Mapping[str, Measured]) -> str | None:
    """The sentence for a method that ends below the classifier that learned nothing; None where it does not."""
    method = classifier.method_
    if "zero_shot" not in rows or rows[method.name].accuracy >= rows["zero_shot"].accuracy:
        return None
    tuned, plain = (percent(rows[name].accuracy) for name in (method.name, "zero_shot"))
    advice = ["more images of each class"]
    if classifier.preset is None and method.name in method_names():
        advice.append("--preset paper")
    advice.append("--method " + " or ".join(name for name in SAFER if name != method.name))
    if getattr(method.config, "context_init", None) == "":
        advice.append(GENTLER)
    return (
        f"{method.name} is right on {tuned} of the held-out images and zero_shot on {plain}: it lost more than it "
        f"learned, and CLIP as it is does better here. Try: {'; '.join(advice)}."
    )


def _measure(classifier: FewShotClassifier, options: FitOptions, decoder: Decoder) -> dict[str, Measured]:
    """Figures by the name that the table shows; zero-shot first, none without held-out images."""
    method, table = classifier.method_, classifier.test_table_
    if table is None:
        return {}
    baseline = zero_shot(classifier.backbone_, method.class_names, options.template, options.dataset)
    with measuring(method.name, len(table)) as tick:
        return measure_beside(baseline, method, table, decoder=decoder, after_batch=tick)


def _note_measured(
    classifier: FewShotClassifier, rows: Mapping[str, Measured], seconds: float, options: FitOptions
) -> None:
    """Figures, and what is needed to measure again on the same images, into the record: `daptune report` does."""
    data, metrics = classifier.record_.data, classifier.record_.metrics
    if options.template:
        data["templates"] = list(options.template)
    if options.dataset is not None:
        data["dataset"] = options.dataset
    metrics["seconds"] = round(seconds, 2)
    if (table := classifier.test_table_) is not None:
        figures = {name: row.to_json(table.class_names) for name, row in rows.items()}
        metrics["held_out"] = {"split": classifier.test_name_, "images": len(table)} | figures
