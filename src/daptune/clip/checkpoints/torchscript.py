"""Tensors out of a TorchScript archive, without running any of its code.

OpenAI published its CLIPs as TorchScript: a zip of program code, a pickle of the module tree (`data.pkl`) and the raw
storages. `torch.jit.load` would compile the program; here `unpickle` reads the tree alone.
"""

from pathlib import Path

from torch import Tensor

from ...foreign import open_zip
from .unpickle import Node, View, read_archive

_ADVICE = "which no CLIP needs: it was not opened; use a .safetensors file of this model."


def is_torchscript(path: Path) -> bool:
    """Whether a zip file holds TorchScript; raises ValueError or zipfile.BadZipFile for a truncated one."""
    with path.open("rb") as file, open_zip(file) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """Every tensor of the module tree under its dotted name, as a state dict would name it.

    Raises BackboneError for an archive that asks for more than modules and tensors, or is damaged.
    """
    tensors, _ = read_archive(path, lambda module, _: module.partition(".")[0] == "__torch__", _ADVICE, _views)
    return tensors


def _views(root: object) -> dict[str, View]:
    """Dotted name -> tensor description, over the whole tree; a node is visited once, so that no loop is endless."""
    found: dict[str, View] = {}
    waiting: list[tuple[str, object]] = [("", root)]
    seen: set[int] = set()
    while waiting:
        prefix, node = waiting.pop()
        if isinstance(node, View):
            found[prefix.removesuffix(".")] = node
        elif isinstance(node, Node) and id(node) not in seen:
            seen.add(id(node))
            waiting += [(f"{prefix}{name}.", value) for name, value in reversed(node.attributes.items())]
    return found
