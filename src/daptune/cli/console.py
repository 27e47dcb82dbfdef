"""Everything that the command line prints: tables and data on stdout, progress and warnings on stderr."""

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from daptune.text import one_line, printable, printable_json

_LONGEST = 2_000  # characters of a line or a cell
_PLAIN_WIDTH = 110  # without a terminal, such as in a log file
EVERY = 10.0
"""Most seconds of silence without a terminal."""


def _console(*, stderr: bool) -> Console:
    console = Console(stderr=stderr, highlight=False, emoji=False)  # `:x:` in a name stays as it is
    return console if console.is_terminal else Console(stderr=stderr, highlight=False, emoji=False, width=_PLAIN_WIDTH)


def say(text: str = "") -> None:
    """One line of the result on stdout; `text` may contain rich's markup, so escape user input."""
    _console(stderr=False).print(printable(text), soft_wrap=True)


def say_plainly(text: str) -> None:
    """One line of the result on stdout, taken literally."""
    _console(stderr=False).print(text, markup=False, soft_wrap=True)


def note(text: str) -> None:
    """A remark on stderr, taken literally."""
    _console(stderr=True).print(printable(text), markup=False, soft_wrap=True)


def emit_json(value: Any) -> None:
    """One JSON value on stdout; numbers that are not finite become null."""
    sys.stdout.write(printable_json(json.dumps(_finite(value), ensure_ascii=False, indent=2)) + "\n")


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], *, left: int = 1) -> None:
    """A table on stdout; the first `left` columns are text, the others numbers. Cells are taken literally."""
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for place, column in enumerate(columns):
        table.add_column(escape(printable(column)), justify="left" if place < left else "right", overflow="fold")
    for row in rows:
        table.add_row(*(escape(printable(cell)) for cell in row))
    if title:
        say(f"\n[bold]{escape(printable(title))}[/bold]")
    _console(stderr=False).print(table)


def print_pairs(pairs: Mapping[str, object]) -> None:
    """Names and values in two aligned columns on stdout."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in pairs.items():
        grid.add_row(escape(printable(name)), escape(printable(value, _LONGEST)))
    _console(stderr=False).print(grid)


class _Text(TextColumn):
    """A text in a progress display, in which names of others may stand."""

    def render(self, task: Task) -> Text:
        return Text(printable(super().render(task).plain))


class _Lines(Progress):
    """A progress display in plain lines: one when a task with a known end comes to another part, such as an epoch.

    `alive` prints the state of the last task besides, every `EVERY` seconds.
    """

    def add_task(self, *args: Any, **kwargs: Any) -> TaskID:
        task = super().add_task(*args, **kwargs)
        self._told(task, line=False)
        return task

    def update(self, task_id: TaskID, **kwargs: Any) -> None:
        before = self.tasks[task_id].description
        super().update(task_id, **kwargs)
        other = self.tasks[task_id].description != before
        self._told(task_id, line=other and kwargs.get("total") is not None)

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        super().advance(task_id, advance)
        self._told(task_id, line=False)

    def _told(self, task_id: TaskID, *, line: bool) -> None:
        task = self.tasks[task_id]
        count = "" if task.total is None or not self.counts else f" {task.completed:.0f} of {task.total:.0f}"
        extra = str(task.fields["note"])
        _sign.tell(f"{task.description}{count}{': ' if extra else ''}{extra}", line=line)

    counts = False


class _CountedLines(_Lines):
    counts = True


class _Sign:
    """What a command is doing, printed as a plain line when it changes, and again in every `EVERY` seconds of silence.

    Started once a command, by `alive`; silent where stderr is a terminal, which has bars.
    """

    def __init__(self) -> None:
        self.text, self.began, self.last = "", 0.0, 0.0
        self.on = self.silent = False
        self._lock = threading.Lock()

    def tell(self, text: str, *, line: bool = True) -> None:
        """What is being done now; with `line`, print it."""
        with self._lock:
            self.text = text
            if line:
                self._print(text)

    def pause(self) -> float:
        """Seconds until the next line is due; prints it if it is."""
        with self._lock:
            left = self.last + EVERY - time.monotonic()
            if left > 0:
                return left
            if self.silent:
                self.last = time.monotonic()
            else:
                self._print(f"{self.text} ({time.monotonic() - self.began:.0f} s)")
            return EVERY

    def _print(self, text: str) -> None:
        self.last = time.monotonic()
        with suppress(OSError, ValueError):  # nobody reads, or it is closed at the end
            note(f"daptune: {''.join(sign if sign.isprintable() else ' ' for sign in text)}")


_sign = _Sign()


@contextmanager
def alive(what: str) -> Iterator[None]:
    """Inside, a line every `EVERY` seconds says on stderr what is being done, unless that is a terminal.

    `what` is said where nothing else is known. Of the processes of a distributed training, the first one speaks.
    """
    if _sign.on or not sys.stderr or sys.stderr.isatty() or os.environ.get("RANK", "0") != "0":
        yield
        return
    _sign.on, _sign.text, _sign.began = True, what, time.monotonic()
    _sign.last, over = _sign.began, threading.Event()

    def watch() -> None:
        while not over.wait(_sign.pause()):
            pass

    thread = threading.Thread(target=watch, name="daptune-alive", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        _sign.on = False


def starting(verb: str) -> None:
    """Say at once that a command runs, if imports of seconds come first. Of several processes the first one speaks."""
    if sys.modules.get("torch") is None and sys.stderr and os.environ.get("RANK", "0") == "0":
        note(f"daptune: {verb} is starting")


@contextmanager
def silent() -> Iterator[None]:
    """Inside, `alive` prints nothing: another process does."""
    _sign.silent = True
    try:
        yield
    finally:
        _sign.silent = False


@contextmanager
def progress(*, steps: bool, warn: bool = True) -> Iterator[Progress]:
    """A progress display on stderr: a bar on a terminal, else plain lines.

    With `steps` it shows the count and the time left, without them only the task's `note`. With `warn`, warnings are
    printed above the bar.
    """
    console = _console(stderr=True)
    counters: list[ProgressColumn] = [MofNCompleteColumn(), TimeRemainingColumn()] if steps else []
    kind = Progress if console.is_terminal else _CountedLines if steps else _Lines
    with (
        kind(
            SpinnerColumn(),
            _Text("{task.description}", markup=False),
            BarColumn(bar_width=14),
            *counters,
            _Text("{task.fields[note]}", markup=False),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        ) as bar,
        warnings_shown(console) if warn else nullcontext(),
    ):
        yield bar


@contextmanager
def warnings_shown(console: Console | None = None) -> Iterator[list[str]]:
    """Print each warning that the package logs as one line on stderr, once. Yields the lines, with those of blocks
    within this one, for --json."""
    # One handler at a time: within a progress display, lines must go through its console to stay above the bar.
    logger = logging.getLogger("daptune")
    before = logger.handlers
    own: list[logging.Handler] = [handler for handler in before if not isinstance(handler, _LineHandler)]
    outer = next((handler.told for handler in before if isinstance(handler, _LineHandler)), [])
    logger.handlers = [*own, _LineHandler(console or _console(stderr=True), outer)]
    try:
        yield outer
    finally:
        logger.handlers = before


def warned(told: Sequence[str], *own: str | None) -> dict[str, Any]:
    """For --json: the warnings that stderr shows, `own` ones of the command first, and the first of them."""
    lines = [*filter(None, own), *told]
    return {"warning": next(iter(lines), None), "warnings": lines}


class _LineHandler(logging.Handler):
    def __init__(self, console: Console, told: list[str]) -> None:
        super().__init__(logging.WARNING)
        self.console = console
        self.told = told  # a search fits many times, and each fit has the same to say

    def emit(self, record: logging.LogRecord) -> None:
        text = one_line(record.getMessage(), _LONGEST)
        if text not in self.told:
            self.told.append(text)
            self.console.print(f"daptune: warning: {text}", markup=False, soft_wrap=True)


def percent(value: float) -> str:
    """0.5432 -> `54.3 %`."""
    return f"{100 * value:.1f} %"


def size_text(count: float) -> str:
    """Bytes in decimal units: `98.4 kB`."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"


def shapes_text(shapes: Mapping[str, Sequence[int]]) -> str:
    """Tensors by name, `text_prompt 16 x 512`; a network of more than four tensors by their number."""
    networks = [name.partition(".")[0] for name in shapes if "." in name]
    parts = {}
    for name, shape in shapes.items():
        network = name.partition(".")[0]
        if networks.count(network) > 4:
            parts[network] = f"{network} ({networks.count(network)} tensors)"
        else:
            parts[name] = f"{name} {' x '.join(map(str, shape))}"
    return ", ".join(parts.values())


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not -float("inf") < value < float("inf"):
        return None
    return value
