"""What the Dockerfiles say is true here, where nothing builds them: files, extras, the command, the health check."""

import json
import re
import runpy
import subprocess
import sys
import tomllib
import types
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"


def steps(path: Path) -> list[tuple[str, str]]:
    """Instructions and their words, continued lines joined."""
    text = re.sub(r"\\\n\s*", "", path.read_text("utf-8"))
    return [tuple(line.split(maxsplit=1)) for line in text.splitlines() if line and line[0] != "#"]  # type: ignore[misc]


def words_of(found: list[tuple[str, str]], name: str) -> list[str]:
    (words,) = [words for instruction, words in found if instruction == name]
    return json.loads(words[words.index("[") :])


IMAGE = steps(DEPLOY / "Dockerfile")


def test_the_wheel_comes_from_the_files_that_are_copied(tmp_path: Path) -> None:
    """As in the first stage, in a folder that has nothing else."""
    pytest.importorskip("hatchling")
    first = IMAGE[: [name for name, _ in IMAGE].index("FROM", 1)]
    allowed = (DEPLOY / "Dockerfile.dockerignore").read_text("utf-8").split()
    for words in (words.split() for name, words in first if name == "COPY"):
        *sources, target = words
        for source in sources:
            assert f"!{source}" in allowed, f"{source} is not in the build context"
            place = tmp_path / (
                source if target == source or not target.endswith("/") else f"{target}{Path(source).name}"
            )
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(ROOT / source)
    command = [sys.executable, "-m", *next(words for name, words in first if words.startswith("hatchling")).split()]
    assert first[-1] == ("RUN", "hatchling build -t wheel -d /wheel")
    subprocess.run([*command[:-1], str(tmp_path / "wheel")], cwd=tmp_path, check=True, capture_output=True)
    (wheel,) = (tmp_path / "wheel").glob("*.whl")
    with ZipFile(wheel) as archive:
        names = archive.namelist()
        (points,) = [name for name in names if name.endswith("entry_points.txt")]
        assert "daptune = daptune.__main__:main" in archive.read(points).decode()
    assert {"daptune/cli/serve.py", "daptune/serve/page/index.html"} <= set(names)


def test_the_image_serves_as_a_user_without_rights() -> None:
    from daptune.cli import data, eval_, export, import_, methods, serve, sharing, show  # noqa: F401
    from daptune.cli.app import app

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    asked = next(words for name, words in IMAGE if name == "ARG" and words.startswith("EXTRAS="))
    assert set(asked.partition("=")[2].split(",")) <= set(extras)
    names = [name for name, _ in IMAGE]
    assert names.index("USER") < names.index("CMD") and ("USER", "daptune") in IMAGE
    assert words_of(IMAGE, "ENTRYPOINT") == ["daptune"]
    _, bound, _ = app.parse_args(words_of(IMAGE, "CMD"), print_error=False, exit_on_error=False)
    assert bound.arguments["paths"] == (Path("/adapters"),) and bound.arguments["host"] == "0.0.0.0"
    assert ("EXPOSE", str(bound.arguments["port"])) in IMAGE


def test_the_health_check_asks_where_no_token_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    guard = pytest.importorskip("daptune.serve.guard", reason="needs daptune[serve]")
    from urllib import request

    asked: list[str] = []
    monkeypatch.setattr(request, "urlopen", lambda url, timeout: asked.append(url))
    *_, flag, code = re.findall(r'"([^"]*)"', next(words for name, words in IMAGE if name == "HEALTHCHECK"))
    assert flag == "-c"
    exec(code, {})
    (address,) = asked
    _, port, path = re.fullmatch(r"http://(127\.0\.0\.1):(\d+)(/\w+)", address).groups()  # type: ignore[union-attr]
    assert ("EXPOSE", port) in IMAGE and path in guard._OPEN


def test_the_composition_has_the_image_and_a_token() -> None:
    yaml = pytest.importorskip("yaml")
    services = yaml.safe_load((DEPLOY / "compose.yml").read_text("utf-8"))["services"]
    server, proxy = services["daptune"], services["proxy"]
    assert (DEPLOY / server["build"]["context"] / server["build"]["dockerfile"]).is_file()
    assert server["environment"]["DAPTUNE_TOKEN"].startswith("${DAPTUNE_TOKEN:?")  # compose stops without one
    assert "ports" not in server and server["read_only"] and proxy["ports"]
    (given, _) = (volume.split(":") for volume in proxy["volumes"])
    assert (DEPLOY / given[0]).is_file()
    port = next(words for name, words in IMAGE if name == "EXPOSE")
    assert f"reverse_proxy daptune:{port} " in (DEPLOY / "Caddyfile").read_text("utf-8")


def test_the_demo_page_answers(adapter: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its function, with gradio's parts as they are called; gradio is installed by its image alone."""
    from PIL import Image

    import daptune

    made: dict[str, Any] = {}
    parts = {
        name: lambda name=name, **options: made.update({name: options}) for name in ("Interface", "Image", "Label")
    }
    monkeypatch.setitem(sys.modules, "gradio", types.SimpleNamespace(**parts))  # type: ignore[arg-type]
    (tmp_path / "adapter").symlink_to(adapter)
    monkeypatch.chdir(tmp_path)
    classify = runpy.run_path(str(DEPLOY / "space" / "app.py"))["classify"]
    picture = next(pictures.rglob("*.png"))
    found, expected = classify(Image.open(picture)), daptune.load(adapter)
    assert found == dict(zip(expected.classes_.tolist(), expected.predict_proba([picture])[0].tolist(), strict=True))
    assert classify(None) == {} and made["Image"] == {"type": "pil"}


def test_the_space_names_its_port() -> None:
    _, front, _ = (DEPLOY / "space" / "README.md").read_text("utf-8").split("---\n")
    space = steps(DEPLOY / "space" / "Dockerfile")
    port = re.search(r"^app_port: (\d+)$", front, flags=re.MULTILINE)
    assert port is not None and ("EXPOSE", port[1]) in space and "sdk: docker" in front
    assert f"GRADIO_SERVER_PORT={port[1]}" in dict(space)["ENV"] and dict(space)["USER"] == "user"
