"""What the README says is true: its commands and its Python run, its table is the registry, its links lead on."""

import re
import shlex
from pathlib import Path
from zipfile import ZipFile

import pytest

from daptune.cli import run
from daptune.data.demo import ARCHIVE, demo_styles
from daptune.methods import METHODS

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"(<!-- needs a network -->\n)?```(bash|python)\n(.*?)```", TEXT, flags=re.DOTALL)


def commands(program: str) -> list[list[str]]:
    """The README's command lines that begin with `program`, without those that need a network."""
    lines = [line for network, kind, body in BLOCKS if kind == "bash" and not network for line in body.splitlines()]
    words = [shlex.split(line, comments=True) for line in lines]
    return [line for line in words if line and line[0] == program]


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folders that the README speaks of, with some of the demo's pictures; the working directory.

    Trainings have a tenth of their steps: what is said to run is run, and how well it learns is measured elsewhere.
    """
    monkeypatch.setattr("daptune.train.schedule.DEFAULT_STEPS", 20)
    monkeypatch.setattr("daptune.train.schedule.LEAST_EPOCHS", 1)
    source = demo_styles()[0]
    with ZipFile(ARCHIVE) as archive:
        inside = [name for name in archive.namelist() if name.startswith(f"{source}/")]
        classes = sorted({name.split("/")[2] for name in inside})[:4]
        for name in inside:
            _, split, label, file = name.split("/")
            if label not in classes:
                continue
            folder = {"test": "more-pictures"}.get(split, "pictures")
            for target in [tmp_path / folder / label / file] + [tmp_path / "new-pictures" / file] * (split == "test"):
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(archive.read(name))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_commands_run(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = commands("daptune")
    assert [words[1] for words in found] == ["fit", "eval", "predict", "report", "export", "predict"]
    for words in found:
        assert run(words[1:]) == 0, capsys.readouterr().err
    assert '"top": [' in capsys.readouterr().out


def test_the_python_runs(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (source,) = [body for _, kind, body in BLOCKS if kind == "python"]
    exec(compile(source, "README.md", "exec"), {})
    classes = sorted(path.name for path in (folders / "pictures").iterdir())
    assert capsys.readouterr().out.startswith("[" + " ".join(f"{name!r}" for name in classes[:3]) + "]")
    assert (folders / "my-adapter" / "adapter.safetensors").is_file()


def test_commands_that_need_a_network_are_understood(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [line for network, _, body in BLOCKS if network for line in body.splitlines()]
    assert len(lines) == 2
    for line in lines:
        assert run(shlex.split(line)[1:]) == 2
        assert "HF_HUB_OFFLINE" in capsys.readouterr().err


def test_make_has_the_targets() -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), flags=re.MULTILINE)
    assert [words[1] for words in commands("make")] == ["demo", "test"]
    assert {"demo", "test"} <= set(targets)


def test_ci_calls_the_readme_test_command() -> None:
    assert "make test" in (ROOT / ".ci" / "run").read_text("utf-8")


def test_the_table_names_methods_that_exist() -> None:
    listed = set(re.findall(r"^\| `(\w+)` \|", TEXT, flags=re.MULTILINE))
    assert {"zero_shot", "linear_probe", "coop", "vpt", "coop_vpt", "dapt"} <= listed <= set(METHODS)


def test_links_lead_to_files() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", TEXT) if not link.startswith("http")]
    assert links and all((ROOT / link.partition("#")[0]).is_file() for link in links)
