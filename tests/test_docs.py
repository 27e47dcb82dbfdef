"""What the documentation says runs, and its links lead somewhere."""

import json
import re
from pathlib import Path
from zipfile import ZipFile

import pytest
import torch
from PIL import Image

import daptune
from daptune import load_backbone
from daptune.adapter.record import read_record
from daptune.adapter.store import make_record, save_adapter
from daptune.bench.plan import parse_plan
from daptune.data.demo import ARCHIVE, demo_styles
from daptune.methods import METHODS
from tests.test_readme import folders  # noqa: F401

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").rglob("*.md"))


def blocks(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), flags=re.DOTALL)


@pytest.fixture
def tasks(folders: Path) -> Path:  # noqa: F811
    """Beside the folders of the README two more, of other classes of the demo: animals/ and food/."""
    of_task = {"animals": ["insect", "mammal", "sea animal"], "food": ["dessert", "fruit"]}
    with ZipFile(ARCHIVE) as archive:
        for name in archive.namelist():
            style, split, label, file = name.split("/")
            for task in [task for task, labels in of_task.items() if label in labels]:
                if (style, split) == (demo_styles()[0], "support"):
                    target = folders / task / label / file
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(archive.read(name))
    return folders


ORIGINALS = [page for page in PAGES if page.parent.name != "zh"]
"""Pages in Chinese have the code of the English ones, by test_translations.py."""


@pytest.mark.parametrize("page", [page for page in ORIGINALS if blocks(page)], ids=lambda page: page.stem)
def test_python_runs(page: Path, tasks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for code in blocks(page):
        exec(compile(code, str(page), "exec"), {"__name__": "docs"})
    if page.stem in ("data", "training"):
        assert capsys.readouterr().out.strip()
    if page.stem == "mvlpt":
        start, target = (read_record(tasks / name) for name in ("start", "my-adapter"))
        assert start.method_config["tasks"] == [3, 2] and len(start.class_names) == 5
        assert target.data["started_from"] == start.tensors_sha256
        assert not set(target.class_names) & set(start.class_names)


def test_plans_and_json_are_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bench plan, or lines of JSON; a formatter may have joined their lines."""
    monkeypatch.chdir(tmp_path)
    plans = 0
    for page in [*PAGES, ROOT / "README.md"]:
        text = page.read_text("utf-8")
        for code in re.findall(r"```toml\n(.*?)```", text, flags=re.DOTALL):
            for folder in re.findall(r'"((?:\./|TASKS/)[^"]+)"', code):
                Path(folder).mkdir(parents=True, exist_ok=True)
            assert parse_plan(code, page.stem).jobs()
            plans += 1
        for code in re.findall(r"```json\n(.*?)```", text, flags=re.DOTALL):
            parsed: list[object] = []
            decoder, left = json.JSONDecoder(), code.strip()
            while left:
                found, end = decoder.raw_decode(left)
                parsed.append(found)
                left = left[end:].strip()
            assert parsed
    assert plans > 1


def test_the_ten_lines_for_a_webcam_label_what_it_sees(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A made picture of FFmpeg at the pace of a camera: red for 1.2 seconds, then blue."""
    pytest.importorskip("av")
    backbone = load_backbone("tiny")
    save_adapter(
        tmp_path / "a", zero_shot := METHODS["zero_shot"](backbone, ["red", "blue"]), make_record(zero_shot, backbone)
    )
    (code,) = re.findall(r"```py\n(import time.*?)```", (ROOT / "docs/tools.md").read_text("utf-8"), flags=re.DOTALL)
    stream = (
        "color=red:size=64x64:rate=5:duration=1.2[a];color=blue:size=64x64:rate=5:duration=1[b];[a][b]concat,realtime"
    )
    for written, here in (("/dev/video0", stream), ("v4l2", "lavfi"), ("ADAPTER", str(tmp_path / "a"))):
        assert code.count(f'"{written}"') == 1
        code = code.replace(f'"{written}"', repr(here))
    exec(code, {"__name__": "docs"})
    expected = daptune.load(tmp_path / "a").predict([Image.new("RGB", (64, 64), colour) for colour in ("red", "blue")])
    said = capsys.readouterr().out.split()
    assert expected[0] != expected[1]
    assert said[0] == expected[0] and said[-1] == expected[1] and len(said) in (2, 3)


def test_the_example_method_works() -> None:
    space: dict[str, object] = {"__name__": "docs"}
    exec(blocks(ROOT / "docs/adding-a-method.md")[0], space)
    example = space["ClassTemperature"]
    backbone = load_backbone("tiny")
    method = example(backbone, ["flower", "clock"], example.config_class(initial=2.0))  # type: ignore[attr-defined]
    images = torch.randn(3, 3, backbone.preprocess.size, backbone.preprocess.size)
    plain = super(type(method), method).logits(images)
    torch.testing.assert_close(method.logits(images), 2 * plain)
    method.losses(images, torch.tensor([0, 1, 1]))["total"].backward()
    assert method.temperature.grad.abs().sum() > 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_on(page: Path) -> None:
    prose = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", prose):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_tests_that_security_names_are_there() -> None:
    """`FILE::TEST`, or `::TEST` of the file named before it; a file without its folder is looked for."""
    files = {path.name: path for path in (ROOT / "tests").rglob("test_*.py")}
    text, named = (ROOT / "docs" / "security.md").read_text("utf-8"), ""
    found = re.findall(r"`((?:tests/)?[\w/]*?test_\w+\.py)?(?:::(test_\w+))?`", text)
    for file, test in found:
        named = file or named
        if not (file or test):
            continue
        path = ROOT / named if named.startswith("tests/") else files[named]
        assert f"def {test}(" in path.read_text("utf-8") if test else path.is_file(), f"{named}::{test}"
    assert sum(bool(test) for _, test in found) > 50
