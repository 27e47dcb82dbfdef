"""What writes files, for test_crashes: each begun, done, looked at by whoever comes next, and done again."""

import hashlib
import io
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from starlette.datastructures import UploadFile

from daptune import cli
from daptune.adapter.folder import adapters_in
from daptune.adapter.record import read_record, read_tensor_file
from daptune.adapter.sharing import find_adapter
from daptune.bench.plan import parse_plan
from daptune.bench.runner import run_plan
from daptune.data.benchmarks.inventory import check
from daptune.data.benchmarks.prepare import FAILED, prepare
from daptune.errors import DaptuneError
from daptune.serve import trainer
from daptune.serve.lessons import Lessons
from daptune.serve.pool import AdapterPool
from daptune.serve.routes.adapters import install
from daptune.serve.trainer import Trainer
from tests.bench.helpers import InThisProcess, small_plan
from tests.data.benchmarks.server import serving
from tests.data.benchmarks.test_prepare import published


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


def hidden(folder: Path) -> list[str]:
    """Names that nobody is to find once a folder was opened again."""
    marks = (".new", ".previous", ".lock", ".part", ".partial", ".unneeded")
    return [str(path) for path in folder.rglob("*") if path.name.endswith(marks)]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


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


def uploading(given: Any) -> Deed:
    """An adapter that a client of the server sends."""
    given.fixture("fitted").save(given.tmp / "sent")
    content = {path.name: path.read_bytes() for path in (given.tmp / "sent").iterdir()}

    def act(folder: Path) -> None:
        if not (folder / "sent").exists():
            install(
                AdapterPool(given.backbone), folder / "sent", {n: UploadFile(io.BytesIO(b)) for n, b in content.items()}
            )

    def look(folder: Path) -> None:
        assert [listed.fault for listed in adapters_in(folder)] in ([], [""])
        assert hidden(folder) == []

    def result(folder: Path) -> object:
        return {path.name: digest(path) for path in (folder / "sent").iterdir()}, sorted(
            p.name for p in folder.iterdir()
        )

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


DEEDS: dict[str, Callable[[Any], Deed | Iterator[Deed]]] = {
    "save": saving,
    "fit": fitting,
    "teach": teaching,
    "upload": uploading,
    "predict": lambda given: predicting(given, "rows.jsonl"),
    "predict csv": lambda given: predicting(given, "rows.csv"),
    "bench": benching,
    "data prepare": preparing,
    "cache": caching,
}
