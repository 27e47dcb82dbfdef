"""A missing package names the extra that brings it, in one line, wherever it is first needed."""

import ast
import re
import runpy
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import daptune
from daptune.cli import EXTRAS, run
from daptune.data import formats

ROOT = Path(__file__).parent.parent
PLAN = """
name = "small"
backbone = "tiny"
datasets = ["demo"]
seeds = [1]
[[experiments]]
kind = "fewshot"
methods = ["zero_shot"]
shots = [1]
"""
COMMANDS = [
    ("matplotlib", "report", "report {adapter} --images {pictures} --out page.html"),
    ("onnx", "export", "export {adapter} --out model.onnx"),
    ("onnxscript", "export", "export {adapter} --out model.onnx"),
    ("onnxruntime", "export", "predict model.onnx {pictures}"),
    ("openvino", "openvino", "predict model.onnx {pictures} --engine openvino"),
    ("fastapi", "serve", "serve {adapter} --port 0"),
    ("starlette", "serve", "serve {adapter} --port 0"),
    ("uvicorn", "serve", "serve {adapter} --port 0"),
    ("python_multipart", "serve", "serve {adapter} --port 0"),
    ("prometheus_client", "serve", "serve {adapter} --port 0"),
    ("optuna", "tune", "tune {pictures} --trials 1 --out trials"),
    ("ray", "cluster", "bench plan.toml --executor ray --out run"),
    ("ray", "cluster", "predict {adapter} {pictures} --executor ray --out labels.csv"),
    ("pyarrow", "parquet", "predict {adapter} {pictures} --out labels.parquet"),
    ("pyarrow", "parquet", "predict {adapter} images.parquet"),
    ("pyarrow", "parquet", "fit images.parquet --out other"),
    ("pillow_heif", "heic", "fit phone --out other"),
    ("tensorboard", "tensorboard", "fit {pictures} --tensorboard logs --out other"),
    ("av", "video", "predict {adapter} film.mp4 --every 1s"),
]


@pytest.mark.parametrize(("module", "extra", "command"), COMMANDS, ids=lambda value: value.split(" {")[0])
def test_a_missing_package_names_its_extra(
    module: str,
    extra: str,
    command: str,
    adapter: Path,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plan.toml").write_text(PLAN)
    (tmp_path / "images.parquet").write_bytes(b"PAR1")
    for name in ("cat", "dog"):
        (tmp_path / "phone" / name).mkdir(parents=True)
        (tmp_path / "phone" / name / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    formats._reads_heic.cache_clear()
    for name in list(sys.modules):
        if name.startswith((f"{module}.", "daptune.serve", "daptune.cli.serve")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    words = [word.format(adapter=adapter, pictures=pictures) for word in command.split()]
    assert run(words) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if "warning" not in line]
    assert len(said) == 1, said
    assert module.split("_")[-1] in said[0] and f"pip install 'daptune[{extra}]'" in said[0]


def test_so_does_one_that_torch_asks_for(adapter: Path, tmp_path: Path) -> None:
    code = "import sys; sys.modules['onnx_ir'] = None; from daptune.cli import main; main()"
    command = [sys.executable, "-c", code, "export", str(adapter), "--out", str(tmp_path / "model.onnx")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1] == "daptune: error: exporting needs onnx_ir: pip install 'daptune[export]'"


def asked_for() -> dict[str, set[str]]:
    """Names of distributions by extra, and under "" those that are always there, from pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    groups = {"": project["dependencies"], **project["optional-dependencies"]}
    return {
        extra: {re.split(r"[^\w-]", each)[0].lower().replace("_", "-") for each in wanted}
        for extra, wanted in groups.items()
    }


def imported() -> set[str]:
    """Modules of other packages that the source imports, anywhere."""
    found: set[str] = set()
    for path in Path(daptune.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add((node.module or "").partition(".")[0])
    return found - set(sys.stdlib_module_names) - {"daptune"}


def test_every_import_is_a_dependency_or_belongs_to_an_extra() -> None:
    optional = {module for modules in EXTRAS.values() for module in modules}
    distributions = packages_distributions()
    core = asked_for()[""] | {"scipy", "joblib", "threadpoolctl"}  # which scikit-learn asks for
    for module in imported() - optional:
        names = {name.lower().replace("_", "-") for name in distributions.get(module, [module])}
        assert names & core, f"{module} is imported: name it in the dependencies, or in an extra and in cli.EXTRAS"
    assert {module for module, *_ in COMMANDS} | {"onnx_ir", "pydantic"} == optional


def test_every_extra_brings_what_is_said() -> None:
    wanted = asked_for()
    assert set(EXTRAS) == set(wanted) - {"", "all", "docs", "dev"}
    brought_by_others = {"onnx_ir", "pydantic", "starlette"}  # onnxscript, fastapi
    for extra, modules in EXTRAS.items():
        assert {module.replace("_", "-") for module in modules if module not in brought_by_others} <= wanted[extra]


def test_make_lowest_tries_every_extra() -> None:
    parts = runpy.run_path(str(ROOT / "tools" / "lowest.py"))["PARTS"]
    assert set(parts) == set(EXTRAS) | {"core"}
