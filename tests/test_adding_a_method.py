"""The page on adding a method, done as it says in a copy of the repository: its files, and nothing else."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "adding-a-method.md").read_text("utf-8")
COPIED = ["src", "tests", "docs/methods", "tools/page_lines.py", "pyproject.toml"]
TESTS = ["test_registry.py", "test_pages.py", "test_matrix.py", "test_shared_tower.py", "test_no_waiting.py"]


def block(kind: str, place: int = 0) -> str:
    """A fenced block of the page."""
    return re.findall(rf"```{kind}\n(.*?)```", PAGE, flags=re.DOTALL)[place]


NAME = re.findall(r'^    name = "(\w+)"', block("python"), flags=re.MULTILINE)[0]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository with the method's file, its page and its row."""
    root = tmp_path_factory.mktemp("repository")
    ignored = shutil.ignore_patterns("__pycache__")
    for name in COPIED:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, root / name, ignore=ignored)
        else:
            shutil.copy2(ROOT / name, root / name)
    if (ROOT / ".mypy_cache").is_dir():  # what is known about torch takes half a minute to learn
        shutil.copytree(ROOT / ".mypy_cache", root / ".mypy_cache")
    (root / f"src/daptune/methods/{NAME}.py").write_text(block("python"), "utf-8")
    (root / f"docs/methods/{NAME}.md").write_text(block("markdown"), "utf-8")
    table = root / "docs/methods/README.md"
    rows = table.read_text("utf-8").split("\n")
    last = max(place for place, line in enumerate(rows) if re.match(r"\| \[`\w+`\]\(", line))
    rows.insert(last + 1, block("markdown", 1).strip())
    table.write_text("\n".join(rows), "utf-8")
    return root


@pytest.fixture
def run(copy: Path) -> Callable[..., str]:
    """Runs a module of the environment in the copy, whose package is the one that is imported."""

    def run(*words: str) -> str:
        environment = os.environ | {"PYTHONPATH": str(copy / "src")}
        environment = {name: value for name, value in environment.items() if not name.startswith("PYTEST_")}
        command = [sys.executable, *words]
        done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def test_the_page_names_the_files(run: Callable[..., str]) -> None:
    for path in (f"src/daptune/methods/{NAME}.py", f"docs/methods/{NAME}.md"):
        assert f"`{path}`" in PAGE
    assert f"({NAME}.md)" in block("markdown", 1)


def test_ruff_and_mypy_have_nothing_to_say(run: Callable[..., str]) -> None:
    file = f"src/daptune/methods/{NAME}.py"
    run("-m", "ruff", "check", file)
    run("-m", "ruff", "format", "--check", file)
    run("-m", "mypy", file)


@pytest.mark.slow
def test_the_matrix_takes_it(run: Callable[..., str]) -> None:
    run("tools/page_lines.py")
    files = [f"tests/methods/{name}" for name in TESTS]
    told = run("-m", "pytest", "-q", "-p", "no:cacheprovider", *files, "-k", f"{NAME} or which_methods_share")
    assert int(re.findall(r"(\d+) passed", told)[0]) >= 20
    assert not re.search(r"\d+ (failed|skipped|error)", told)


def test_it_can_be_used(run: Callable[..., str]) -> None:
    code = f"from daptune.cli import main; main(['methods', '--json']) # {NAME}"
    assert f'"{NAME}"' in run("-c", code)
