"""The folder of a run: one process writes it at a time, and a run that comes to nothing leaves nothing.

run_dir/checkpoint.safetensors   what a stopped run is resumed from (checkpoint.py)
run_dir/history.jsonl            one line per epoch
run_dir/choice.json              which method `--method auto` chose (daptune.choose.choice)
run_dir/finished.json            the adapter of a finished `daptune fit`, in place of the checkpoint
run_dir/.lock                    who is writing; gone when nobody is
"""

import contextlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from daptune import files, locks
from daptune.errors import Interrupted, TrainingError
from daptune.train.checkpoint import FILE_NAME, saving

CHOICE, FINISHED, LOCK = "choice.json", "finished.json", ".lock"
PATIENCE = 3.0
"""Seconds to wait for the lock: processes of a run that was just killed may take a moment to end."""


@contextmanager
def run_folder(run_dir: Path | None) -> Iterator[None]:
    """Create and lock the folder inside; nothing for None. The thread that holds it may do so again.

    What killed processes left half-written is removed. If the block fails before there is a checkpoint, so is the
    choice of a method, and the folder if it is new. Raises TrainingError if another process writes there.
    """
    if run_dir is None:
        yield
        return
    new = not run_dir.exists()
    try:
        with saving(run_dir), contextlib.ExitStack() as held:
            run_dir.mkdir(parents=True, exist_ok=True)
            held.enter_context(_locked(run_dir))
            files.clear(run_dir)
            inside = held.pop_all()
        with inside:
            try:
                yield
            except (Interrupted, KeyboardInterrupt):
                raise
            except BaseException:
                if not (run_dir / FILE_NAME).exists():
                    (run_dir / CHOICE).unlink(missing_ok=True)
                raise
    finally:
        if new:
            with contextlib.suppress(OSError):  # it is not empty
                run_dir.rmdir()


@contextmanager
def _locked(run_dir: Path) -> Iterator[None]:
    try:
        with locks.lock(run_dir / LOCK, wait=PATIENCE, again=True):
            yield
    except locks.Busy as busy:
        raise TrainingError(
            f"{busy} is writing to the run in {run_dir}; wait until it ends, or name another folder with --run-dir."
        ) from None


def anew(run_dir: Path) -> str:
    """How to begin another run than the one in the folder, for messages."""
    return f"to start anew, name another folder with --run-dir, or remove {run_dir}"


def check_unused(run_dir: Path | None, *, resume: bool = False) -> None:
    """Raise `TrainingError` if the folder holds a run that is not to be resumed."""
    if run_dir is not None and not resume and (run_dir / FILE_NAME).exists():
        raise TrainingError(
            f"{run_dir} already holds a run; continue it with --resume and the options that it was started with; "
            f"{anew(run_dir)}."
        )


def finish(run_dir: Path, adapter: Path, tensors_sha256: str, settings: dict[str, Any]) -> None:
    """Note what a finished run made, with the settings (JSON values) that it had, and remove its checkpoint."""
    content = {"adapter": str(adapter), "tensors_sha256": tensors_sha256, "settings": settings}
    with saving(run_dir / FINISHED):
        files.write(run_dir / FINISHED, (json.dumps(content, indent=2) + "\n").encode())
        (run_dir / FILE_NAME).unlink(missing_ok=True)


def finished(run_dir: Path) -> dict[str, Any] | None:
    """What `finish` noted; None if there is a checkpoint to resume from, or no finished run."""
    if (run_dir / FILE_NAME).exists():
        return None
    try:
        found = files.read_json(run_dir / FINISHED)
    except (OSError, ValueError):
        return None
    names = {"adapter": str, "tensors_sha256": str, "settings": dict}
    sound = isinstance(found, dict) and all(isinstance(found.get(name), kind) for name, kind in names.items())
    return found if sound else None
