"""The rooms of the package import one way, and what must be quick to start does not import torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import daptune

SOURCE = Path(daptune.__file__).parent

# From the ground up: a room may import from every room before it. `data` and `clip` stand beside each other.
ROOMS = [
    "interrupts", "text", "errors", "regular", "foreign", "opcodes", "names", "locks", "files", "looked_at", "isolated",
    "hub", "processes", "heap", "cluster", "metrics", "measured", "calibration", "presets", "data", "clip", "methods",
    "transductive", "evaluate", "embedded", "suitability", "train", "adapter", "predict", "choose", "classifier",
    "compare", "labelling", "bench", "tune", "export", "__init__", "serve", "report", "cli", "__main__",
]  # fmt: skip
ALLOWED = {room: set(ROOMS[:place]) for place, room in enumerate(ROOMS)}
ALLOWED["clip"] -= {"data"}


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    """Rooms of daptune that a module imports, at its top or inside its functions."""
    package = ("daptune", *path.relative_to(SOURCE).parent.parts)
    rooms: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            stem = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (stem, node.module or "") if part)
            names = [f"{module}.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "daptune" and len(parts) > 1:
                known = (SOURCE / parts[1]).is_dir() or (SOURCE / f"{parts[1]}.py").is_file()
                rooms.add(parts[1] if known else "__init__")
    return rooms


MODULES = sorted(path for path in SOURCE.rglob("*.py") if "__pycache__" not in path.parts)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_run_one_way(path: Path) -> None:
    room = room_of(path)
    assert room in ALLOWED, f"{path} opens a new room: say in this test what it may import"
    beyond = imported_rooms(path) - ALLOWED[room] - {room}
    assert not beyond, f"{path.relative_to(SOURCE)} must not import {sorted(beyond)}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_file_and_its_functions_are_of_a_length_that_is_read_at_once(path: Path) -> None:
    text = path.read_text("utf-8")
    assert len(text.splitlines()) <= 400
    functions = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    lengths = {function.name: (function.end_lineno or 0) - function.lineno + 1 for function in functions}
    assert not {name: length for name, length in lengths.items() if length > 60}


def modules_after(code: str, *, whole: bool = False) -> set[str]:
    """Top-level modules, or all, that are loaded after the code has run in a fresh interpreter."""
    script = (
        f"import sys\ntry:\n    {code}\nexcept SystemExit:\n    pass\nprint('\\n'.join(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return {name if whole else name.partition(".")[0] for name in done.stderr.split()}


HEAVY = {"torch", "sklearn", "numpy", "PIL", "tokenizers", "huggingface_hub", "safetensors"}


def test_importing_the_package_is_free() -> None:
    assert not modules_after("import daptune") & (HEAVY | {"rich", "cyclopts"})


LOADED = """
import sys
from daptune.cli import run

def say(*words):
    code = run(words)
    print("\\n>", code, *sorted({name for name in sys.modules if sys.modules[name] is not None}), flush=True)

say("--help")
say("fit", "--help")
say("fti", "x")
say("fit", "x", "--shts", "3")
say("fit", ".", "--method", "dabt")
say("tune", ".", "--method", "dabt")
say("compare", ".", "--methods", "coop,dabt")
say("fit", ".", "--set", "inter_wieght=1")
say("fit", ".", "--train", "weight_decai=1")
say("fit", "nowhere")
sys.modules["torch"] = None  # an import of it fails
say("fit", ".")
"""


def test_words_are_answered_before_anything_heavy_is_imported() -> None:
    """In the order of LOADED, one after the other in one process: what has been imported then."""
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True)
    codes, loaded = [], []
    for line in done.stdout.splitlines():
        if line.startswith("> "):
            code, *names = line.split()[1:]
            codes.append(int(code))
            loaded.append({name.partition(".")[0] for name in names} | {*names})
    assert codes == [0, 0] + [2] * 9
    assert not loaded[0] & (HEAVY | {"markdown_it", "importlib.metadata"})
    assert not set().union(*loaded[:9]) & (HEAVY | {"scipy", "asyncio"})
    assert not loaded[9] & {"torch", "sklearn", "scipy", "tokenizers", "huggingface_hub"}  # it is the reader that tells
    said = done.stderr.splitlines()
    assert len(said) == 10 and all(line.startswith("daptune: error: ") for line in said[:8] + said[9:])
    assert said[8] == "daptune: fit is starting" and "torch is not installed" in said[9]


def test_prediction_waits_neither_for_scikit_learn_nor_for_the_compiler(adapter: Path, pictures: Path) -> None:
    """The imports of either take as long as torch's own."""
    image = next(pictures.rglob("*.png"))
    found = modules_after(
        f"from daptune.cli import main; main(['predict', {str(adapter)!r}, {str(image)!r}])", whole=True
    )
    assert "torch.nn" in found and not found & {"sklearn", "scipy.stats", "pandas", "torch._dynamo"}


def test_every_public_name_resolves() -> None:
    for name in daptune.__all__:
        assert getattr(daptune, name) is not None
    assert set(daptune.__all__) >= set(daptune._LAZY)
    assert set(daptune.__all__) <= set(dir(daptune))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        daptune.nonsense  # noqa: B018


def test_the_type_checker_and_the_lazy_table_see_the_same_names() -> None:
    tree = ast.parse((SOURCE / "__init__.py").read_text("utf-8"))
    guarded = next(node for node in tree.body if isinstance(node, ast.If))
    typed = {
        alias.name: node.module for node in guarded.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert typed == daptune._LAZY
