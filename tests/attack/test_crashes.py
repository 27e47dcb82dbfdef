"""Killed at any file-system call, or with a disk that is full from any on, nothing of what was finished is lost."""

import io
import random
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from daptune.clip.backbone import Backbone, load_backbone
from daptune.errors import DaptuneError
from tests.conftest import COLOURS, save_picture

from .child import in_child
from .deeds import DEEDS, Deed, hidden
from .faults import Faults

MEMORY = 3000


def alone(function: Callable[[Path], object], folder: Path, faults: Faults | None = None) -> Any:
    """Call it in a child on one thread, with the faults."""

    def work() -> list[str]:
        torch.set_num_threads(1)
        sys.stdout, sys.stderr = io.StringIO(), io.StringIO()
        if faults is not None:
            faults.install()
        function(folder)
        return [] if faults is None else faults.calls

    return in_child(work, MEMORY, 120)


@dataclass
class Attack:
    """Tries a deed at many calls; counts what it did for the table."""

    name: str
    deed: Deed
    folder: Path
    pick: Callable[[int], list[int]]
    tried: int = 0
    longest: float = 0.0
    peak: float = 0.0

    def whole(self) -> tuple[object, int]:
        """What an undisturbed deed leaves, and the number of its calls; found once a deed."""
        if self.name in _WHOLE:
            return _WHOLE[self.name]
        place = self.begun("whole")
        outcome = alone(self.deed.act, place, Faults(place))
        assert outcome.error is None and outcome.signal == 0, outcome
        assert hidden(place) == []
        _WHOLE[self.name] = self.deed.result(place), len(outcome.answer)
        return _WHOLE[self.name]

    def begun(self, name: str) -> Path:
        place = self.folder / name
        place.mkdir()
        self.deed.begin(place)
        return place

    def run(self, *, full: bool) -> list[str]:
        """Every failure in words."""
        expected, calls = self.whole()
        failures = []
        for at in self.pick(calls):
            place = self.begun(f"{'full' if full else 'kill'}{at}")
            try:
                outcome = alone(self.deed.act, place, Faults(place, at, full=full))
                self.tried += 1
                self.longest, self.peak = max(self.longest, outcome.seconds), max(self.peak, outcome.peak)
                if full:
                    assert outcome.signal == 0
                    assert outcome.error is None or isinstance(outcome.error, DaptuneError | OSError), outcome.error
                    assert "\n" not in str(outcome.error)
                else:
                    assert outcome.signal == signal.SIGKILL, outcome
                self.deed.look(place)
                after = alone(self.deed.again or self.deed.act, place)
                assert after.error is None and after.signal == 0, after.error
                assert self.deed.result(place) == expected
                assert hidden(place) == []
            except (AssertionError, DaptuneError, OSError, KeyError) as error:
                failures.append(f"call {at} of {calls}: {type(error).__name__}: {error}")
            else:
                shutil.rmtree(place)
        return failures


@pytest.fixture(scope="module")
def backbone(made_up_backbone: str) -> Backbone:
    return load_backbone(made_up_backbone, precision="fp32")


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of four and five pictures to learn from, and one each to measure on."""
    folder = tmp_path_factory.mktemp("few")
    for place, name in enumerate(("red", "green thing")):
        for number in range(4 + place):
            save_picture(folder / "train" / name / f"{number}.png", COLOURS[name], 10 * place + number)
        save_picture(folder / "test" / name / "0.png", COLOURS[name], 90 + place)
    return folder


_WHOLE: dict[str, tuple[object, int]] = {}


@pytest.fixture
def deed(
    name: str,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    backbone: Backbone,
    few: Path,
    tmp_path: Path,
) -> Iterator[Deed]:
    monkeypatch.setattr("daptune.classifier.load_backbone", lambda *_, **__: backbone)
    monkeypatch.setattr("daptune.adapter.store.load_backbone", lambda *_, **__: backbone)
    kept = SimpleNamespace(backbone=backbone, few=few, tmp=tmp_path, patch=monkeypatch, fixture=request.getfixturevalue)
    made = DEEDS[name](kept)
    yield from made if isinstance(made, Iterator) else iter([made])


@pytest.mark.parametrize("full", [False, True], ids=["killed", "disk full"])
@pytest.mark.parametrize("name", DEEDS)
def test_at_every_call(
    name: str,
    deed: Deed,
    full: bool,
    tmp_path: Path,
    tries: Callable[[int, int], int],
    seed: int,
    tally: Callable[..., None],
) -> None:
    def pick(calls: int) -> list[int]:
        count = tries(1, calls)
        return sorted(random.Random(seed + calls + full).sample(range(1, calls + 1), min(count, calls)))

    (tmp_path / "attack").mkdir()
    attack = Attack(name, deed, tmp_path / "attack", pick)
    failures = attack.run(full=full)
    counts = {"inputs" if full else "kills": attack.tried}
    tally(**counts, failures=len(failures), peak=attack.peak, longest=attack.longest)
    assert not failures, "\n".join(failures)
