"""`daptune compare`: methods side by side on a user's own images, by cross-validation."""

from pathlib import Path

from daptune.choose.choice import CANDIDATES
from daptune.cli.console import emit_json, progress, say, warnings_shown
from daptune.cli.fit import check_share, make_classifier
from daptune.cli.fitting import print_trials
from daptune.cli.options import CompareOptions
from daptune.compare import compare_methods


def run(folder: Path, options: CompareOptions) -> int:
    """Run the command. Raises DaptuneError for bad input, Interrupted when stopped."""
    classifier = make_classifier(options.for_fit())
    check_share(options.holdout)
    named = options.methods
    methods = CANDIDATES if named is None else [word.strip() for word in named.split(",") if word.strip()]
    with warnings_shown(), progress(steps=False) as bar:
        task = bar.add_task("compare: reading images", total=None, note="")
        found = compare_methods(
            classifier,
            folder,
            methods=methods,
            folds=options.folds,
            minutes=options.minutes,
            holdout=options.holdout,
            tell=lambda text: bar.update(task, description=f"compare: {text}"),
        ).to_json()
    if options.json:
        emit_json(found)
        return 0
    print_trials(found, intervals=True)
    several, figure = (" --multi-label", "mAP") if options.multi_label else ("", "accuracy")
    say(f"Differences are image by image. Near the best: within one standard error of its {figure}.")
    say(f"Test images were not used. Train one of the methods with: daptune fit FOLDER --method NAME{several}")
    return 0
