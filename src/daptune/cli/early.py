"""Words that are checked before torch is imported, which takes seconds.

Methods and options are read from the source files, without running them. What cannot be read there is left to the
imports, whose messages these are.
"""

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

import daptune
from daptune.cli.options import key_values
from daptune.errors import DaptuneError, MethodError, TrainingError, suggest
from daptune.names import plain_key

ROOT = Path(daptune.__file__).parent
_NAMED = re.compile(r'^    name = "(\w+)"', re.MULTILINE)
_TRAINING = ("train/schedule.py", "TrainConfig")


@cache
def _files() -> Mapping[str, Path]:
    """The file of each of daptune's methods; empty where the package is no folder."""
    files = sorted((ROOT / "methods").glob("*.py"))
    return {name: file for file in files for name in _NAMED.findall(file.read_text("utf-8"))}


def own_methods() -> frozenset[str]:
    """The names of daptune's methods, as their files say."""
    return frozenset(_files())


def check_method(word: str) -> None:
    """Raise MethodError, as `daptune.methods.get_method` does; words that a plug-in may know are left to it."""
    known = own_methods()
    fits = word == "auto" or plain_key(word) in {plain_key(name) for name in known}
    if known and not fits:
        from importlib.metadata import entry_points  # slow to import

        if not entry_points(group="daptune.methods"):
            raise MethodError(f"There is no method {word!r}.{suggest(word, known)}")


def check_options(method: str, set_options: Sequence[str], train_options: Sequence[str]) -> None:
    """Raise MethodError or TrainingError for an unknown name after --set or --train, as `parse_options` does."""
    words = key_values(set_options)
    name = next((name for name in own_methods() if plain_key(name) == plain_key(method)), None)
    if words and name is not None:
        _check_names(name, words, method_options(name), MethodError)
    training = key_values(train_options, "--train", "name=value, such as weight_decay=0.01")
    if training:
        _check_names("training", training, _fields(ROOT / _TRAINING[0], _TRAINING[1]), TrainingError)


def check_folder(folder: Path) -> None:
    """Raise DataError, as `daptune.read_source` does, where there is no such folder or file."""
    if not str(folder).startswith("data:") and not folder.expanduser().exists():
        from daptune.data.sources import read_source

        read_source(folder)


def method_options(name: str) -> frozenset[str] | None:
    """The names of a method's options; None if its file does not tell."""
    file = _files()[name]
    for cls in _classes(file):
        said = dict(_assigned(cls)).get("name")
        if isinstance(said, ast.Constant) and said.value == name:
            return _config_of(file, cls)
    return None


def _config_of(file: Path, cls: ast.ClassDef) -> frozenset[str] | None:
    """The fields of the class that `config_class` names, in the class or in those it is derived from."""
    config = dict(_assigned(cls)).get("config_class")
    if isinstance(config, ast.Name):
        return _fields(file, config.id)
    for base in cls.bases:
        if isinstance(base, ast.Name) and (found := _find(file, base.id)) is not None:
            return _config_of(*found)
    return None


def _assigned(cls: ast.ClassDef) -> Iterator[tuple[str, ast.expr | None]]:
    """The names that a class's body gives values, or annotates, with the values."""
    for node in cls.body:
        if not isinstance(node, ast.Assign | ast.AnnAssign):
            continue
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            if isinstance(target, ast.Name):
                yield target.id, node.value


def _fields(file: Path, name: str) -> frozenset[str] | None:
    """The fields of a dataclass and of its bases; None if one of these is not found."""
    found = _find(file, name)
    if found is None:
        return None
    place, cls = found
    fields: set[str] = set()
    for node in cls.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            fields |= set() if "ClassVar" in ast.unparse(node.annotation) else {node.target.id}
    for base in cls.bases:
        inherited = _fields(place, base.id) if isinstance(base, ast.Name) else None
        if inherited is None:
            return None
        fields |= inherited
    return frozenset(fields)


def _find(file: Path, name: str) -> tuple[Path, ast.ClassDef] | None:
    """The class that a file defines under this name, or imports from a file beside it, and that class's file."""
    for cls in _classes(file):
        if cls.name == name:
            return file, cls
    for node in _tree(file).body:
        if not isinstance(node, ast.ImportFrom) or node.level != 1 or not node.module:
            continue
        if any((alias.asname or alias.name) == name for alias in node.names):
            other = file.parent.joinpath(*node.module.split(".")).with_suffix(".py")
            return _find(other, name) if other.is_file() else None
    return None


def _classes(file: Path) -> Iterator[ast.ClassDef]:
    return (node for node in _tree(file).body if isinstance(node, ast.ClassDef))


@cache
def _tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text("utf-8"))


def _check_names(owner: str, given: Mapping[str, str], known: frozenset[str] | None, error: type[DaptuneError]) -> None:
    unknown = sorted(set(given) - known) if known else []
    if known and unknown:
        raise error(f"{owner} has no option {unknown[0]!r}.{suggest(unknown[0], known)}")
