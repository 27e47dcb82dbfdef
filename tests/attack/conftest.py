"""Attacks run small and seeded with the other tests, and whole by `make attack`, which prints what each one tried."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

WHOLE = bool(os.environ.get("DAPTUNE_ATTACK"))
COLUMNS = ("inputs", "kills", "failures", "peak MB", "longest s")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.attack)


@pytest.fixture
def tries() -> Callable[[int, int], int]:
    """`tries(few, many)` is how many inputs to try: few with the other tests, many in `make attack`."""
    return lambda few, many: many if WHOLE else few


@pytest.fixture
def seed() -> int:
    """Seed of what is drawn at random; DAPTUNE_ATTACK_SEED chooses another one than 0."""
    return int(os.environ.get("DAPTUNE_ATTACK_SEED", "0"))


@pytest.fixture
def tally(record_property: Callable[[str, object], None]) -> Callable[..., None]:
    """`tally(inputs=3, peak=1.5, ...)` puts a row into the table at the end; call it before what is asserted."""

    def record(
        *, inputs: int = 0, kills: int = 0, failures: int = 0, peak: float | None = None, longest: float | None = None
    ) -> None:
        record_property("attack", (inputs, kills, failures, peak, longest))

    return record


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table of all attacks that kept a tally."""
    rows = []
    for report in [*terminalreporter.stats.get("passed", []), *terminalreporter.stats.get("failed", [])]:
        for name, value in report.user_properties:
            if name == "attack":
                cells = ["-" if number is None else f"{number:,.4g}" for number in value]
                rows.append([report.nodeid.removeprefix("tests/attack/"), *cells])
    if rows and WHOLE:
        terminalreporter.section("attacks")
        for row in [["attack", *COLUMNS], ["---"] * (len(COLUMNS) + 1), *rows]:
            terminalreporter.write_line("| " + " | ".join(row) + " |")
