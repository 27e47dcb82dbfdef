"""`daptune tune`: a search for settings on a user's own images; prints the command that trains with the best."""

import shlex
from pathlib import Path

from daptune.cli.console import emit_json, note, percent, print_pairs, print_table, progress, say, warnings_shown
from daptune.cli.fit import check_share, make_classifier
from daptune.cli.options import FitOptions, TuneOptions
from daptune.clip.backbone import Backbone
from daptune.data.fewshot import sample_fewshot, split_holdout
from daptune.data.sources import read_source
from daptune.data.table import ImageTable
from daptune.errors import DataError
from daptune.tune import BEST, Search, TrialRow, prepare, run_search, split_params

SHOWN = 10


def run(folder: Path, limits: TuneOptions) -> int:
    """Run the command. Raises DaptuneError for bad input, Interrupted when stopped."""
    options = limits.for_fit()
    if limits.trials < 1 or (limits.minutes is not None and limits.minutes <= 0):
        raise DataError(f"--trials and --minutes must be above 0; found {limits.trials} and {limits.minutes}")
    classifier = make_classifier(options)
    classifier.settings()  # reports a mistyped option before the images are read
    with warnings_shown():
        search = prepare(classifier, *images(folder, options), folds=limits.folds)
    if not options.json:
        print_pairs(
            {
                "searched": ", ".join(setting.name for setting in search.settings),
                "measured on": search.how + "; test images are not used",
            }
        )
    with progress(steps=False) as bar:
        task = bar.add_task("tune", total=limits.trials, note="trial 1: the defaults")

        def tell(row: TrialRow) -> None:
            bar.update(task, completed=row.number, note=f"trial {row.number + 1}")
            bar.console.print(f"trial {row.number}: {_score(row)}, {_values(row)}", markup=False, soft_wrap=True)

        rows = run_search(search, limits.out.expanduser(), trials=limits.trials, minutes=limits.minutes, tell=tell)
    if not rows or rows[0].accuracy is None:
        note("daptune: no trial was finished; repeat the command with more --minutes")
        return 0
    command = fit_command(folder, options, search, rows[0])
    if options.json:
        emit_json(
            {
                "best": {search.figure: rows[0].accuracy, "params": rows[0].params},
                f"default_{search.figure}": next((row.accuracy for row in rows if row.is_default), None),
                "measured": search.how,
                "trials": len(rows),
                "command": command,
            }
        )
        return 0
    names = [setting.name for setting in search.settings]
    score = "mAP" if options.multi_label else "accuracy"
    cells = [
        (row.number, _score(row), *(f"{row.params[name]:.3g}" for name in names), "defaults" * row.is_default)
        for row in (*rows[:SHOWN], *(row for row in rows[SHOWN:] if row.is_default))
    ]
    print_table(f"{len(rows)} trials, the best first, on {search.how}", ("trial", score, *names, ""), cells)
    say(f"The best is in {limits.out / BEST}.")
    say("The best of many trials looks better than it is: evaluate it once on new images, with")
    say(f"  {command}")
    return 0


def images(folder: Path, options: FitOptions) -> tuple[ImageTable, ImageTable | None]:
    """The training sample of `daptune fit` and the validation split: never test images, nor those that `fit` would
    hold out."""
    check_share(options.holdout)
    splits = read_source(folder, own_ids=options.names is not None, multi_label=options.multi_label)
    train = splits.train
    if splits.test is None and options.holdout:
        train, _ = split_holdout(train, options.holdout, options.seed)
    return sample_fewshot(train, options.shots, options.seed).train, splits.val


def fit_command(folder: Path, options: FitOptions, search: Search, row: TrialRow) -> str:
    """The `daptune fit` command with the settings of a trial, on the same sample of images."""
    method, train = split_params(search, row.params)
    backbone = search.classifier.backbone  # loaded by the search
    name = backbone.name if isinstance(backbone, Backbone) else backbone
    words = ["daptune", "fit", str(folder), "--method", search.classifier.method, "--backbone", name]
    words += ["--shots", str(options.shots or "all"), "--seed", str(options.seed)]
    if options.multi_label:
        words.append("--multi-label")
    if options.names is not None:
        words += ["--names", str(options.names)]
    if options.holdout != FitOptions.holdout:
        words += ["--holdout", str(options.holdout)]
    for name in ("precision", "device"):
        if (value := getattr(options, name)) != getattr(FitOptions, name):
            words += [f"--{name}", value]
    for name, value in train.items():
        if name == "seed":
            continue
        if not hasattr(FitOptions, name):
            words += ["--train", f"{name}={_text(value)}"]
        elif not isinstance(value, bool):
            words += [f"--{name.replace('_', '-')}", _text(value)]
        elif value:
            words.append(f"--{name}")
    for name, value in method.items():
        words += ["--set", f"{name}={_text(value)}"]
    return shlex.join(words)


def _text(value: object) -> str:
    return "none" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def _score(row: TrialRow) -> str:
    return "pruned" if row.accuracy is None else percent(row.accuracy)


def _values(row: TrialRow) -> str:
    return ", ".join(f"{name} {value:.3g}" for name, value in row.params.items())
