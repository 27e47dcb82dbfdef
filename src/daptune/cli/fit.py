"""`daptune fit`: a folder of images -> an adapter, with the zero-shot classifier measured beside it."""

import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from daptune.adapter.record import check_target
from daptune.classifier import FewShotClassifier
from daptune.cli.console import emit_json, note, percent, print_pairs, say, size_text, warnings_shown
from daptune.cli.options import FitOptions
from daptune.cli.setup import CHECK_ALL, key_values, read_images, readable
from daptune.cli.tables import print_comparison, print_extremes
from daptune.cli.training import fit_with_bar, measure, method_card
from daptune.data.fewshot import split_holdout
from daptune.data.table import ImageTable
from daptune.errors import DataError, MethodError
from daptune.evaluate import Measured, zero_shot
from daptune.methods import get_method
from daptune.presets import method_names
from daptune.train import TrainConfig
from daptune.train.checkpoint import FILE_NAME
from daptune.train.parallel import Ranks, joined, launch

GENTLER = "a gentler start (--set context_init='a photo of a' --lr 0.001)"
"""What served one image a class best in docs/defaults.md."""
SAFER = ("lp_pp", "tip_adapter")
"""Methods that hold on to zero-shot CLIP's own answer."""


@dataclass(frozen=True)
class Images:
    """What is learned from and what is measured on."""

    train: ImageTable
    val: ImageTable | None
    test: ImageTable | None
    test_name: str


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
    classifier = make_classifier(options)
    classifier.settings()  # a mistyped option is told before the images are read
    if not Ranks().first:  # it helps to train, and that is all
        images = _images(folder, options)
        classifier.fit(images.train, val=images.val, run_dir=run_dir, resume=options.resume)
        return 0
    with warnings_shown():
        images = _images(folder, options)
        card: dict[str, str] = {}

        def before(ready: FewShotClassifier) -> None:
            held = "none" if images.test is None else f"{len(images.test)} images ({images.test_name})"
            card.update(method_card(ready, held))
            if not options.json:
                print_pairs(card)

        began = time.monotonic()
        fit_with_bar(classifier, images.train, val=images.val, run_dir=run_dir, resume=options.resume, before=before)
        seconds = time.monotonic() - began
        rows = _measure(classifier, images, options)
    names = classifier.method_.class_names
    record = classifier.record_
    data = record.data | _held_out(images, options)
    classifier.record_ = replace(record, metrics=_metrics(rows, images, names, seconds), data=data)
    folder_out = classifier.save(out)
    (run_dir / FILE_NAME).unlink(missing_ok=True)  # finished: the history stays, the next fit begins anew
    size = sum(path.stat().st_size for path in folder_out.iterdir() if path.is_file())
    warning = below_zero_shot(classifier, rows)
    if options.json:
        written = {"adapter": str(options.out), "bytes": size, "card": card, "warning": warning}
        emit_json(written | classifier.record_.metrics)
        return 0
    if images.test is None:
        note("daptune: no images were held out, so nothing was measured; give a test/ folder or more images")
    else:
        title = f"on {len(images.test)} held-out images ({images.test_name})"
        print_comparison(title, rows)
        print_extremes(names, images.test.counts().tolist(), rows)
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
    training = {field.name: getattr(options, field.name, None) for field in fields(TrainConfig)}
    if options.dataset is not None and options.preset is None:
        raise MethodError("--dataset chooses among the settings of a preset; add --preset paper")
    return FewShotClassifier(
        method=options.method,
        backbone=options.backbone,
        shots=options.shots,
        seed=options.seed,
        method_options=method_options,
        train_options={name: value for name, value in training.items() if value is not None},
        start_from=options.start_from,
        preset=options.preset,
        dataset=options.dataset,
        precision=options.precision,
        device=options.device,
        cache_dir=options.cache_dir,
    )


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


def _images(folder: Path, options: FitOptions) -> Images:
    splits = read_images(folder)
    train, test, name = splits.train, splits.test, "test split"
    if test is None and options.holdout:
        train, test = split_holdout(splits.train, options.holdout, options.seed)
        name = f"{options.holdout:.0%} of the images, drawn by class"
    if test is not None and len(test) > CHECK_ALL:
        test = readable(test)
    return Images(train, splits.val, test, name)


def _measure(classifier: FewShotClassifier, images: Images, options: FitOptions) -> dict[str, Measured]:
    """Figures by the name that the table shows; zero-shot first, none without held-out images."""
    if images.test is None:
        return {}
    method, rows = classifier.method_, {}
    if method.name != "zero_shot":
        baseline = zero_shot(classifier.backbone_, method.class_names, options.template, options.dataset)
        rows["zero_shot"] = measure(baseline, images.test)
    rows[method.name] = measure(method, images.test)
    return rows


def _held_out(images: Images, options: FitOptions) -> dict[str, Any]:
    """What is needed to measure again on the same images: `daptune report` draws them anew."""
    found: dict[str, Any] = {"holdout": options.holdout} if images.test is not None else {}
    if options.template:
        found["templates"] = list(options.template)
    return found | ({"dataset": options.dataset} if options.dataset is not None else {})


def _metrics(rows: Mapping[str, Measured], images: Images, names: tuple[str, ...], seconds: float) -> dict[str, Any]:
    found: dict[str, Any] = {"seconds": round(seconds, 2)}
    if images.test is not None:
        held_out: dict[str, Any] = {"split": images.test_name, "images": len(images.test)}
        held_out |= {name: row.to_json(names) for name, row in rows.items()}
        found["held_out"] = held_out
    return found
