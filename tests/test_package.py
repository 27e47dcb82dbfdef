"""The wheel: its description stands alone, and it holds all that the demo needs. `make wheel` also installs it."""

import os
import re
import subprocess
import sys
import tomllib
from email import message_from_bytes
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parent.parent
LINKS = re.compile(r"\]\(\s*<?([^)\s>]+)|(?:href|src)\s*=\s*[\"']?([^\"'\s>]+)|^\s*\[[^\]]+\]:\s*(\S+)", re.MULTILINE)


def links(text: str) -> list[str]:
    """Targets of Markdown's links, images and references, and of HTML."""
    return [next(filter(None, found)) for found in LINKS.findall(text)]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built without a network, by the environment's own hatchling."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def test_links_are_found_in_every_spelling() -> None:
    text = "[a](docs/a.md) ![b](b.png 'title')\n[c]: c.md\n<a href='d.html'><img src=e.svg>"
    assert links(text) == ["docs/a.md", "b.png", "c.md", "d.html", "e.svg"]


def test_every_link_of_the_description_is_absolute(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = message_from_bytes(archive.read(name))
    assert metadata["Description-Content-Type"] == "text/markdown"
    description = metadata.get_payload()
    assert description == (ROOT / "docs" / "package.md").read_text("utf-8")
    found = links(description) + [url.split(", ")[1] for url in metadata.get_all("Project-URL", [])]
    assert found and all(link.startswith("https://") for link in found), found


def test_the_description_names_every_extra() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    text = (ROOT / "docs" / "package.md").read_text("utf-8")
    assert all(f"[{name}]" in text for name in extras if name not in ("docs", "dev"))


def test_the_demo_runs_from_the_wheel_alone(wheel: Path, tmp_path: Path) -> None:
    with ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    inside = {path.relative_to(tmp_path / "site") for path in (tmp_path / "site" / "daptune").rglob("*")}
    source = ROOT / "src"
    expected = {path.relative_to(source) for path in (source / "daptune").rglob("*") if "__pycache__" not in path.parts}
    assert inside == expected
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    where = "import daptune; print(daptune.__file__)"
    options = {"cwd": tmp_path, "env": environment, "check": True, "capture_output": True, "text": True}
    done = subprocess.run([sys.executable, "-c", where], **options)
    assert Path(done.stdout.strip()) == tmp_path / "site" / "daptune" / "__init__.py"
    command = [sys.executable, "-m", "daptune", "demo", "--pictures", "emoji", "--epochs", "1", "--out", "demo"]
    subprocess.run(command, **options)
    assert (tmp_path / "demo" / "adapter" / "adapter.safetensors").is_file()
