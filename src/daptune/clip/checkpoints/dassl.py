"""A training checkpoint of Dassl: the learned tensors of its state dict, and nothing of the objects beside them.

KaiyangZhou/Dassl.pytorch, dassl/engine/trainer.py (`save_model`), writes {"state_dict", "epoch", "optimizer",
"scheduler", "val_result"}. The scheduler holds whole objects, for which `torch.load(weights_only=True)` refuses the
file; here they become empty nodes, and only the tensors that are asked for are read.
"""

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ...errors import BackboneError
from .containers import read_tensors
from .unpickle import View, read_archive

# what optimizers, schedulers and figures of a run are made of; none of it is looked at
_BESIDE = ("torch", "dassl", "numpy")
_PLAIN = {"dict", "list", "tuple", "set", "int", "float", "object", "defaultdict"}
_ADVICE = "which no checkpoint of prompts needs: it was not opened."


def read_training_state(path: Path, wanted: Callable[[str], bool]) -> tuple[dict[str, Tensor], int | None]:
    """The tensors whose names are wanted, and the epoch after which they were saved (None: not said).

    A leading "module." is taken off every name first. A file that is no zip (PyTorch before 1.6, safetensors) is read
    whole as `containers.read_tensors` does. Raises BackboneError for a file that asks for anything besides tensors and
    a run's own objects, or is damaged.
    """
    if not path.is_file():
        raise BackboneError(f"there is no file {str(path)!r}; give a checkpoint such as model.pth.tar-50.")
    if not zipfile.is_zipfile(path):
        found, _ = read_tensors(path)
        return {name: tensor for name, tensor in found.items() if wanted(name)}, None

    def views_of(content: Any) -> dict[str, View]:
        if not isinstance(content, Mapping):
            raise TypeError(f"expected a state dict, found {type(content).__name__}")
        inside = content.get("state_dict")
        named = inside if isinstance(inside, Mapping) else content
        views = {str(name).removeprefix("module."): view for name, view in named.items() if isinstance(view, View)}
        return {name: view for name, view in views.items() if wanted(name)}

    tensors, content = read_archive(path, _is_beside, _ADVICE, views_of)
    epoch = content.get("epoch")
    return tensors, epoch if isinstance(epoch, int) and not isinstance(epoch, bool) else None


def _is_beside(module: str, name: str) -> bool:
    if module in ("builtins", "__builtin__", "collections"):
        return name in _PLAIN
    if (module, name) == ("_codecs", "encode"):  # how pickles of protocol 2 write the bytes of a number of numpy's
        return True
    return module.partition(".")[0] in _BESIDE
