"""The checkpoint of a run: safetensors for tensors, JSON in its header for the rest, never pickle.

    checkpoint.safetensors
      method/<name>                 learned parameters and persistent buffers
      best/<name>                   the same at the best validation so far
      running/<name>                state of the method between epochs, such as an average over them
      optimizer/<parameter>/<key>   momentum or moments
      header: daptune = {"format", "identity", "state"} as JSON; sha256 of that JSON and all tensors

It is replaced atomically (`daptune.files`): after a crash, either the old or the new file is complete.
"""

import errno
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from daptune.errors import TrainingError, foreign, reason
from daptune.files import told, write
from daptune.foreign import parse_json, read_header

FORMAT = 1
FILE_NAME = "checkpoint.safetensors"


@dataclass
class Checkpoint:
    """State of a run between two steps.

    identity   must match to resume: method, classes, backbone, configuration, data
    state      progress of the run, JSON values
    tensors    "section/name" -> tensor, on the CPU, not shared with the model
    """

    identity: dict[str, Any]
    state: dict[str, Any]
    tensors: dict[str, Tensor] = field(default_factory=dict)

    @staticmethod
    def copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}

    def put(self, section: str, tensors: Mapping[str, Tensor]) -> None:
        """Store copies of `tensors` under `section`; training may change the originals."""
        self.tensors |= {f"{section}/{name}": tensor for name, tensor in self.copied(tensors).items()}

    def section(self, section: str) -> dict[str, Tensor]:
        """The tensors of a section by name; empty if there is none."""
        head = f"{section}/"
        return {name.removeprefix(head): t for name, t in self.tensors.items() if name.startswith(head)}

    def write(self, folder: Path) -> None:
        """Replace the checkpoint in `folder`. Raises `TrainingError` on a full or read-only disk."""
        body = json.dumps({"format": FORMAT, "identity": self.identity, "state": self.state})
        header = {"daptune": body, "sha256": _digest(body, self.tensors)}
        with saving(folder / FILE_NAME):
            write(folder / FILE_NAME, safetensors.torch.save(self.tensors, header))


def read_checkpoint(folder: Path) -> Checkpoint | None:
    """The checkpoint in `folder`, or None. Raises `TrainingError` if it cannot be used."""
    path = folder / FILE_NAME
    if not path.exists():
        return None
    advice = "move it away and train again without --resume."
    unread = foreign(lambda why: TrainingError(f"{path} is damaged or not a checkpoint ({why}); {advice}"))
    opened = told(lambda why: TrainingError(f"{path} cannot be read ({why}); {advice}"))
    with unread, opened:
        with path.open("rb") as stream:
            read_header(stream, path.stat().st_size)
        with safetensors.safe_open(str(path), framework="pt") as file:
            header = file.metadata() or {}
            # clone: safetensors maps the file, which the next checkpoint replaces
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        if "daptune" not in header:
            raise TrainingError(f"{path} is not a checkpoint of daptune; {advice}")
        body = parse_json(header["daptune"], nan=True)
        if body["format"] > FORMAT:
            raise TrainingError(
                f"{path} has format {body['format']} and this daptune reads up to {FORMAT}; "
                "update it: pip install -U daptune."
            )
        if _digest(header["daptune"], tensors) != header["sha256"]:
            raise TrainingError(f"{path} is damaged: its checksum does not match; {advice}")
        return Checkpoint(body["identity"], body["state"], tensors)


@contextmanager
def saving(path: Path) -> Iterator[None]:
    """Turn an OSError while writing `path` into a one-line `TrainingError` with advice."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise TrainingError(
                f"The disk is full: {path} was not written and its last version is kept; "
                "free some space and continue with --resume."
            ) from error
        raise TrainingError(
            f"{path} cannot be written ({reason(error)}); name another folder, or make it writable and use --resume."
        ) from error


def _digest(body: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(body.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def pack_optimizer(optimizer: torch.optim.Optimizer, method: torch.nn.Module) -> dict[str, Tensor]:
    """The optimizer's state as {"<parameter>/<key>": tensor}, without learning rates, which depend on the step."""
    names = {id(p): name for name, p in method.named_parameters()}
    return {
        f"{names[id(parameter)]}/{key}": value
        for parameter, state in optimizer.state.items()
        for key, value in state.items()
        if value is not None  # SGD without momentum stores None
    }


def unpack_optimizer(tensors: Mapping[str, Tensor], optimizer: torch.optim.Optimizer, method: torch.nn.Module) -> None:
    """Restore the state from `pack_optimizer`. Raises KeyError for an unknown parameter."""
    state: dict[str, dict[str, Tensor]] = {}
    for path, tensor in tensors.items():
        name, key = path.rsplit("/", 1)
        state.setdefault(name, {})[key] = tensor.clone()  # the optimizer changes it in place
    names = {id(p): name for name, p in method.named_parameters()}
    order = [names[id(p)] for group in optimizer.param_groups for p in group["params"]]
    whole = optimizer.state_dict()
    whole["state"] = {order.index(name): values for name, values in state.items()}
    optimizer.load_state_dict(whole)  # moves each tensor to its parameter's device
