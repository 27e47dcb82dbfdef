"""The candidates of `--method auto`, their order of preference, and the choice of a run.

The order was fixed without looking at accuracies, by what a method costs and what it answers from:

1. Passes of CLIP's towers in training: none, since the features of texts and images are computed once; the text tower
   in each step; both towers in each step.
2. Among equals, methods with an ensemble come first (`Method.joins_ensemble`). They answer from hand-written prompts
   and from the labelled images, so nobody has to know which of the two is worth more. The others answer from one of
   them, or mix them by numbers that want validation images.
3. Among equals, the number of values that the fit sets, small ones first (C classes, D dimensions): C D for `taskres`,
   D^2 / 2 for `clip_adapter`, which is more as long as there are fewer than D / 2 classes.

So the first of all is the cheapest method that uses both texts and images. It is taken where nothing can be compared:
with one image a class, none can be held out.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from daptune.calibration import CHOICES
from daptune.choose.trials import Trials, check_limits
from daptune.data.labels import is_whole
from daptune.errors import DataError, MethodError, TrainingError, foreign
from daptune.files import write
from daptune.foreign import read_json
from daptune.methods import get_method, make_config
from daptune.train.checkpoint import saving
from daptune.train.folder import CHOICE, check_unused, run_folder
from daptune.train.parallel import Ranks

AUTO = "auto"
"""The name that asks for a choice where a method is named."""
CANDIDATES = (
    "taskres", "clip_adapter",
    "zero_shot", "tip_adapter", "prototype", "linear_probe", "lp_pp",
    "coop",
    "coop_vpt", "dapt",
)  # fmt: skip
"""What is tried, in the order of preference, which is also that of the trials."""


def choose(trials: Callable[[], Trials], run_dir: Path | None = None, *, resume: bool = False) -> dict[str, Any]:
    """Run the trials and choose, as JSON values: `method`, `why` and the table of what was tried.

    The choice is kept in `run_dir`, and taken from there where a run is resumed: another look at the clock could end
    in another choice. Raises TrainingError for a folder that holds another run.
    """
    if resume and run_dir is not None and (run_dir / CHOICE).is_file():
        return _read(run_dir / CHOICE)
    check_unused(run_dir, resume=resume)
    with run_folder(run_dir):
        made = trials()
        left_out = tuple(name for name in CANDIDATES if name not in made.recipes)
        choice = replace(made.run(), left_out=left_out).choice()
        if run_dir is not None:
            with saving(run_dir):
                write(run_dir / CHOICE, (json.dumps(choice, indent=2) + "\n").encode())
    return choice


def _read(path: Path) -> dict[str, Any]:
    advice = "train again in another folder, without --resume"
    with foreign(lambda why: TrainingError(f"{path} is damaged ({why}); {advice}")):
        choice: dict[str, Any] = read_json(path)
        if choice["method"] not in CANDIDATES or not isinstance(choice["rows"], list):
            raise ValueError("it holds no choice of a method")
        return choice


def check_settings(shots: Any, seed: Any, switches: Mapping[str, str], templates: Any) -> None:
    """Raise DataError or MethodError for a value that no fit can have."""
    if shots is not None and (not is_whole(shots) or shots < 1):
        raise DataError(f"shots must be a whole number of at least 1, or 'all'; found {shots!r}")
    for switch, value in switches.items():
        if value not in CHOICES:
            raise MethodError(f"{switch} must be one of {', '.join(CHOICES)}; found {value!r}")
    if isinstance(templates, str):
        raise MethodError(f"templates must be a list of texts; found the text {templates!r}")
    make_config("zero_shot", {"templates": tuple(templates)})  # refused now rather than after training
    if not is_whole(seed) or seed < 0:
        raise DataError(f"seed must be a whole number of at least 0; found {seed!r}")


def learners(methods: Sequence[str], multi_label: bool) -> list[str]:
    """The methods that can learn several labels, or all. Raises MethodError if none of them can."""
    found = [name for name in methods if not multi_label or get_method(name).multi_label]
    if not found:
        raise MethodError(
            f"{', '.join(methods)} cannot learn several labels; name {', '.join(learners(CANDIDATES, True))}, or leave "
            "out --multi-label"
        )
    return found


def check_auto(minutes: float, method_options: object, start_from: object, preset: object) -> None:
    """Raise DaptuneError for settings that a choice among methods cannot have."""
    own = {"method_options (--set)": method_options, "start_from (--from)": start_from, "preset": preset}
    if given := [name for name, value in own.items() if value]:
        raise MethodError(f"{given[0]} belongs to one method; leave it out with method='auto', or name the method")
    if Ranks().size > 1:
        raise TrainingError("method='auto' chooses in one process; name a method to train with several")
    check_limits(minutes, None)
