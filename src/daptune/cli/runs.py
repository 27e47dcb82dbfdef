"""The run behind `daptune fit`: whether it is finished already, and what is kept when measuring fails."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from daptune.adapter.record import read_record
from daptune.adapter.sharing import find_adapter
from daptune.cli.console import emit_json, note, say_plainly
from daptune.cli.options import FitOptions
from daptune.errors import AdapterError, DaptuneError, Interrupted, TrainingError
from daptune.files import difference
from daptune.train.checkpoint import FILE_NAME
from daptune.train.folder import finish, finished, run_folder

_ELSEWHERE = ("out", "run_dir", "resume", "json", "device", "devices", "memory", "cache_dir", "minutes")
"""Options that do not change what is learned, or with which a run may be resumed."""

_OPTIONS = {"set_options": "--set", "train_options": "--train", "start_from": "--from"}
"""Options whose names are not those of their fields."""


def run_dir_of(options: FitOptions, out: Path) -> Path:
    """The folder of checkpoints and history."""
    return (options.run_dir or out.with_name(out.name + ".run")).expanduser()


def is_over(folder: Path, options: FitOptions) -> bool:
    """Whether there is nothing to resume because the run is finished, which is then said.

    Raises TrainingError if it had other settings, or if its adapter is no longer there.
    """
    out = options.out.expanduser().resolve()
    run_dir = run_dir_of(options, out)
    if not options.resume or (found := finished(run_dir)) is None:
        return False
    with suppress(TrainingError), run_folder(run_dir):
        pass  # what a process left that was killed at its last step is removed
    again = "To train again, leave out --resume; the adapter is replaced when the new one is complete."
    if other := difference(found["settings"], _settings(folder, options)):
        raise TrainingError(f"The run in {run_dir} is finished, and it had other settings: {other}. {again}")
    adapter = Path(found["adapter"])
    try:
        same = read_record(find_adapter(adapter)).tensors_sha256 == found["tensors_sha256"]
    except AdapterError:
        same = False
    if not same:
        raise TrainingError(f"The run in {run_dir} is finished, but its adapter is no longer in {adapter}. {again}")
    if options.json:
        emit_json({"adapter": str(adapter), "finished": True})
    else:
        say_plainly(f"The run in {run_dir} is finished; its adapter is in {adapter}. Nothing was trained. {again}")
    return True


def note_start(run_dir: Path, options: FitOptions) -> None:
    """Say when there is nothing to resume from."""
    if options.resume and not (run_dir / FILE_NAME).exists():
        note(f"daptune: there is no checkpoint in {run_dir}: the training starts from the beginning")


def end_run(run_dir: Path, out: Path, folder: Path, options: FitOptions) -> None:
    """Note in the folder of the run that it is finished."""
    finish(run_dir, out, read_record(out).tensors_sha256, _settings(folder, options))


@contextmanager
def saved_before(out: Path) -> Iterator[None]:
    """A block that measures a saved adapter: if it fails, its message says that the adapter is kept."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(f"Measuring was stopped; the adapter is saved in {out}.") from None
    except DaptuneError as error:
        raise type(error)(f"The adapter is saved in {out}, but measuring it failed: {error}") from error
    except Exception:
        note(f"daptune: the adapter is saved in {out}; measuring it failed:")
        raise


def command_of(adapter: Path, run_dirs: Sequence[Path], images: str | None) -> list[str]:
    """Words of the `daptune fit` that made an adapter, as a finished run beside it or one of `run_dirs` noted it.

    Empty without such a run. `images` is how the folder of images is written, if it is the same folder.
    """
    own, sha256 = adapter.resolve(), read_record(adapter).tensors_sha256
    for run_dir in (*run_dirs, own.with_name(own.name + ".run")):
        if (found := finished(run_dir)) is not None and found["tensors_sha256"] == sha256:
            return _words(found["settings"], images, str(adapter))
    return []


def _words(settings: Mapping[str, Any], images: str | None, out: str) -> list[str]:
    noted = str(settings.get("images", "IMAGES"))
    same = images is not None and str(Path(images).expanduser().resolve()) == noted
    words = ["daptune", "fit", images if same and images is not None else noted]
    for field in fields(FitOptions):
        value = settings.get(field.name, field.default)
        if field.name in _ELSEWHERE or value in (field.default, list(_listed(field.default))):
            continue
        option = _OPTIONS.get(field.name, "--" + field.name.replace("_", "-"))
        for each in _listed(value):
            words += [option] if each is True else [option, str(each)]
    return [*words, "--out", out]


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else [value]


def _settings(folder: Path, options: FitOptions) -> dict[str, Any]:
    given = {name: value for name, value in asdict(options).items() if name not in _ELSEWHERE}
    source = folder.expanduser()
    given["images"] = source.resolve() if source.exists() else folder
    plain: dict[str, Any] = json.loads(json.dumps(given, default=str))
    return plain
