"""Killed at any file-system call, or with a disk that is full from any on, nothing of what was finished is lost."""

import hashlib
import io
import json
import random
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from daptune import cli
from daptune.adapter.folder import adapters_in
from daptune.adapter.record import read_record, read_tensor_file
from daptune.adapter.sharing import find_adapter
from daptune.bench.plan import parse_plan
from daptune.bench.runner import run_plan
from daptune.clip.backbone import Backbone, load_backbone
from daptune.data.benchmarks.inventory import check
from daptune.data.benchmarks.prepare import FAILED, prepare
from daptune.errors import DaptuneError
from daptune.serve import trainer
from daptune.serve.lessons import Lessons
from daptune.serve.pool import AdapterPool
from daptune.serve.trainer import Trainer
from tests.bench.helpers import InThisProcess, small_plan
from tests.conftest import COLOURS, save_picture
from tests.data.benchmarks.server import serving
from tests.data.benchmarks.test_prepare import published

from .child import in_child
from .faults import Faults

MEMORY = 3000


@dataclass(frozen=True)
class Deed:
    """Something that writes: `act` in a folder that `begin` made, `look` as whoever opens it next, `again` to go on.

    `look` fails on what is neither the old nor the new whole; `result` is what an undisturbed `act` leaves, and `again`
    after a crash.
    """

    act: Callable[[Path], object]
    result: Callable[[Path], object]
    begin: Callable[[Path], object] = lambda folder: None
    look: Callable[[Path], object] = lambda folder: None
    again: Callable[[Path], object] | None = None


def command(*words: object) -> str:
    """Run a command of the program; its error, or nothing. As its messages are one line, so is the error."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = cli.run([*map(str, words)])
    told = [line for line in err.getvalue().splitlines() if line.startswith("daptune: error:")]
    if code:
        assert len(told) == 1 and "Traceback" not in err.getvalue() and "internal error" not in told[0], err.getvalue()
        raise DaptuneError(told[0])
    return out.getvalue()


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


def hidden(folder: Path) -> list[str]:
    """Names that nobody is to find once a folder was opened again."""
    marks = (".new", ".previous", ".lock", ".part", ".partial", ".unneeded")
    return [str(path) for path in folder.rglob("*") if path.name.endswith(marks)]


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


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


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


NAMES = ("save", "fit", "teach", "predict", "predict csv", "bench", "data prepare", "cache")
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


def sound(folder: Path) -> str:
    """The tensors of an adapter, once its record, and the sum that is in there, were checked."""
    place = find_adapter(folder)
    return hashlib.sha256(read_tensor_file(place, read_record(place))).hexdigest()


def saving(given: Any) -> Deed:
    """An adapter over an older one, which has a file of the user's own beside it."""
    fitted = given.fixture("fitted")
    old, new = given.tmp / "old", fitted.with_classes(["one", "two"])
    fitted.save(old)
    (old / "notes.txt").write_text("mine")

    def begin(folder: Path) -> None:
        shutil.copytree(old, folder / "adapter")

    def result(folder: Path) -> object:
        return {path.name: digest(path) for path in (folder / "adapter").iterdir()}

    def look(folder: Path) -> None:
        (listed,) = adapters_in(folder)
        assert listed.fault == "" and listed.record is not None
        assert listed.record.class_names in (("one", "two"), read_record(old).class_names)
        sound(folder / "adapter")
        assert (folder / "adapter" / "notes.txt").read_text() == "mine"
        assert hidden(folder) == []

    return Deed(lambda folder: new.save(folder / "adapter"), result, begin, look)


def fitting(given: Any) -> Deed:
    """A fit of a few steps, which saves its state after each; the new adapter replaces an older one."""
    fitted = given.fixture("fitted")
    fitted.save(given.tmp / "old")
    words = ["--method", "coop", "--set", "text_tokens=2", "--epochs", "2", "--batch-size", "4", "--precision", "fp32"]
    words += ["--backbone", given.fixture("made_up_backbone")]
    words += ["--train", "checkpoint_seconds=0", "--train", "epoch_shots=none"]

    def act(folder: Path, *more: str) -> None:
        command("fit", given.few, "--out", folder / "adapter", *words, *more)

    def begin(folder: Path) -> None:
        shutil.copytree(given.tmp / "old", folder / "adapter")

    def result(folder: Path) -> object:
        rows = [json.loads(line) for line in (folder / "adapter.run" / "history.jsonl").read_text().splitlines()]
        figures = read_record(folder / "adapter").metrics["held_out"]
        told = [{name: value for name, value in row.items() if name != "seconds"} for row in rows]
        return sound(folder / "adapter"), told, figures, sorted(p.name for p in (folder / "adapter.run").iterdir())

    return Deed(act, result, begin, lambda folder: sound(folder / "adapter"), lambda folder: act(folder, "--resume"))


def teaching(given: Any) -> Deed:
    """A lesson that is made, given images, taught twice; a class and another lesson are removed."""
    given.patch.setattr(trainer, "STEPS", 2)
    pictures = {name: sorted((given.few / "train" / name).iterdir()) for name in ("red", "green thing")}

    def act(folder: Path) -> None:
        lessons = Lessons(folder)
        for name in ("colours", "other"):
            if name not in [each.name for each in lessons.all()]:
                lessons.create(name, ["red", "green thing"])
        for label, paths in pictures.items():
            lessons.add_class("colours", label)
            for path in paths[:2]:
                lessons.add_image("colours", label, Image.open(path))
        lessons.add_class("colours", "more")
        lessons.remove_class("colours", "more")
        lessons.delete("other")
        pool = AdapterPool(given.backbone)
        for each in adapters_in(folder):
            pool.add(each.path, each.name)
        teacher = Trainer(pool, lessons)
        job = teacher.start("colours")
        job.over.wait(60)
        teacher.close()
        if job.events[-1]["type"] != "done":
            raise DaptuneError(str(job.events[-1]))

    def look(folder: Path) -> None:
        for lesson in Lessons(folder).all():
            for each in lesson.classes:
                for image in each.images:
                    Image.open(folder / f"{lesson.name}.images" / each.name / f"{image}.png").load()
        for listed in adapters_in(folder):
            assert listed.fault == ""
            sound(listed.path)
        assert hidden(folder) == []

    def result(folder: Path) -> object:
        lesson = Lessons(folder).get("colours")
        classes = {each.name: sorted(each.images) for each in lesson.classes}
        return classes, lesson.trained, sound(folder / "colours"), sorted(path.name for path in folder.iterdir())

    return Deed(act, result, look=look)


def predicting(given: Any, name: str) -> Deed:
    adapter = given.fixture("adapter")

    def act(folder: Path) -> None:
        command("predict", adapter, given.few, "--out", folder / name, "--precision", "fp32", "--batch-size", "3")

    def look(folder: Path) -> None:
        if (out := folder / name).exists():
            assert len(out.read_text().splitlines()) == 11 + name.endswith("csv")

    def result(folder: Path) -> object:
        return (folder / name).read_bytes(), [path.name for path in folder.iterdir()]

    return Deed(act, result, look=look)


def benching(given: Any) -> Deed:
    text = small_plan("made-up.pt", given.few).text.replace("[1, 2]", "[1]")
    plan = parse_plan(text, "small")
    given.patch.setattr("daptune.bench.job._backbone", lambda *_: given.backbone)

    def act(folder: Path) -> None:
        rows = run_plan(plan, folder / "run", root=folder, executor=InThisProcess())
        assert [row.error for row in rows if not row.done] == []

    def result(folder: Path) -> object:
        lines = [json.loads(line) for line in (folder / "run" / "results.jsonl").read_text().splitlines()]
        left = {name: value for line in lines for name, value in [(line["key"], (line["accuracy"], line["correct"]))]}
        assert len(left) == len(lines), "a job was run twice"
        adapters = {path.name: sound(path) for path in (folder / "run" / "adapters").iterdir()}
        return left, adapters, sorted(path.name for path in (folder / "run").iterdir())

    return Deed(act, result)


def preparing(given: Any) -> Iterator[Deed]:
    with serving() as server:
        record = published("dtd", given.tmp / "elsewhere", server, given.patch)
        own = [entry for entry in record.downloads if entry.file != record.split_file]

        def act(folder: Path) -> None:
            steps = prepare(record, folder)
            for step in steps:
                if step.download in own and step.outcome == FAILED:
                    raise DaptuneError(step.reason)

        def result(folder: Path) -> object:
            place = folder / record.folder
            files = {str(path.relative_to(place)): digest(path) for path in sorted(place.rglob("*")) if path.is_file()}
            return files, check("dtd", folder).problems

        yield Deed(act, result)


def caching(given: Any) -> Deed:
    from daptune.data.cache import Decoder

    pictures = sorted((given.few / "train").rglob("*.png"))[:3]

    def act(folder: Path) -> None:
        decode = Decoder(0, folder / "cache")
        for path in pictures:
            assert decode(path).tobytes() == Image.open(path).convert("RGB").tobytes()

    def result(folder: Path) -> object:
        return sorted(digest(path) for path in (folder / "cache").iterdir())

    return Deed(act, result, look=act)


DEEDS: dict[str, Callable[[Any], Deed | Iterator[Deed]]] = {  # by NAMES
    "save": saving,
    "fit": fitting,
    "teach": teaching,
    "predict": lambda given: predicting(given, "rows.jsonl"),
    "predict csv": lambda given: predicting(given, "rows.csv"),
    "bench": benching,
    "data prepare": preparing,
    "cache": caching,
}


@pytest.mark.parametrize("full", [False, True], ids=["killed", "disk full"])
@pytest.mark.parametrize("name", NAMES)
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
