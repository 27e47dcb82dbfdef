"""Save and load adapters: folders of about 100 kB with the learned tensors and everything needed to use them.

    adapter.safetensors   the learned tensors, nothing of the frozen CLIP
    adapter.json          format version, backbone and its sha256, method, resolved configs, class names, metrics
    README.md             a model card

Loading never runs code: safetensors and JSON only. The layout follows PEFT's adapters (config, tensors, card).
"""

import hashlib
import json
import logging
import platform
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from daptune.adapter.card import model_card
from daptune.adapter.record import (
    CARD_FILE,
    JSON_FILE,
    TENSOR_FILE,
    AdapterRecord,
    damaged,
    read_record,
    read_tensor_file,
    write_folder,
)
from daptune.adapter.room import Room
from daptune.adapter.sharing import find_adapter
from daptune.clip.backbone import Backbone, load_backbone
from daptune.clip.checkpoints import SUFFIXES
from daptune.clip.hub import resolve
from daptune.errors import AdapterError, BackboneError, MethodError, foreign, suggest
from daptune.methods import METHODS, MethodConfig
from daptune.methods.base import Method
from daptune.methods.ensemble import Ensemble, Mix
from daptune.methods.sigmoids import judge_by_itself
from daptune.names import own_names
from daptune.text import one_line

_ENSEMBLE = ("ensemble.weights", "ensemble.bias", "ensemble.prototypes")
"""The last is missing after a change of classes."""
logger = logging.getLogger("daptune")


@dataclass(frozen=True)
class Adapter:
    """A loaded adapter: the method on its backbone, ready to predict, and its record."""

    method: Method
    record: AdapterRecord
    backbone: Backbone


def make_record(method: Method, backbone: Backbone, *, train_config: Any = None, **about: Any) -> AdapterRecord:
    """Describe a fitted method. `train_config` is a dataclass, or None without training; about: other fields of the
    record, such as `shots`, `data` and `labels`."""
    versions = {
        "daptune": metadata.version("daptune"),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    own = own_names(method.names)
    return AdapterRecord(
        names=None if own else {label: list(names) for label, names in method.names.items()},
        backbone={"name": backbone.name, "sha256": backbone.sha256, "precision": backbone.precision} | backbone.about,
        method=method.name,
        method_config=_plain(method.config),
        class_names=tuple(method.class_names),
        preprocess=_plain(backbone.preprocess),
        train_config=_plain(train_config),
        ensemble=_plain(method.ensemble and method.ensemble.mix),
        thresholds=None if method.sigmoids is None else method.sigmoids.thresholds.double().tolist(),
        versions=versions,
        **about,
    )


def save_adapter(folder: str | Path, method: Method, record: AdapterRecord) -> Path:
    """Write the adapter into `folder`, replacing an existing one, and return the folder.

    Raises AdapterError if the folder holds something else, or the disk is full; the folder is then unchanged.
    """
    return write_folder(Path(folder), adapter_files(method, record))


def adapter_files(method: Method, record: AdapterRecord) -> dict[str, bytes]:
    """The files of an adapter, by name."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in method.state_dict().items()}
    numbers = sum(value.numel() for value in tensors.values())
    if method.ensemble is not None:
        parts = method.ensemble.weights.half(), method.ensemble.bias, method.ensemble.prototypes.half()
        tensors |= {name: part.cpu() for name, part in zip(_ENSEMBLE, parts, strict=True) if len(part)}
    blob = safetensors.torch.save(tensors, {"format": "pt"})  # one key: the order of several is not fixed
    record = replace(
        record,
        ensemble=_plain(method.ensemble and method.ensemble.mix),  # may have been set aside since the record was made
        tensors=_shapes(tensors),
        tensors_sha256=hashlib.sha256(blob).hexdigest(),
    )
    card = model_card(record, title=method.title, size=len(blob), parameters=numbers)
    return {TENSOR_FILE: blob, CARD_FILE: card.encode(), JSON_FILE: record.to_json().encode()}


def load_adapter(
    folder: str | Path,
    backbone: Backbone | str | None = None,
    *,
    precision: str | None = None,
    device: str = "cpu",
    allow_download: bool = False,
) -> Adapter:
    """Load an adapter, a folder or `hf:user/name[@revision]`, and its backbone unless given.

    `backbone` is a loaded one, or the current location of the adapter's own if it differs from the recorded name;
    `precision` None is that of the adapter. A backbone that only the adapter names is fetched with `allow_download`.
    Raises AdapterError (missing, damaged, newer, unknown method, wrong shapes,
    another backbone) or BackboneError.
    """
    folder = find_adapter(folder)
    record = read_record(folder)
    if record.method not in METHODS:
        raise AdapterError(
            f"{folder} was made with the method {record.method!r}, which this daptune does not have."
            f"{suggest(record.method, METHODS)}"
        )
    tensors = _read_tensors(folder, record)
    if isinstance(backbone, str):
        own = precision or record.backbone.get("precision", "auto")
        backbone = load_backbone(backbone, precision=own, device=device)
    elif backbone is None:
        try:
            backbone = own_backbone(record, precision=precision, device=device, allow_download=allow_download)
        except BackboneError as error:
            raise AdapterError(f"{folder} needs the backbone {record.backbone['name']!r}: {error}") from error
    _check_backbone(folder, record, backbone)
    config = _config(folder, record)
    ensemble = _ensemble(folder, record, tensors, backbone)
    method = _built(folder, record, config, tensors, backbone)
    expected, found = _shapes(method.state_dict()), _shapes(tensors)
    if expected != found:
        name = next(key for key in {**expected, **found} if expected.get(key) != found.get(key))
        right, wrong = (tuple(shapes[name]) if name in shapes else "absent" for shapes in (expected, found))
        raise AdapterError(
            f"{folder / TENSOR_FILE} does not fit the method {record.method!r}: {name} should be {right} and is "
            f"{wrong}; fit again"
        )
    method.load_state_dict(tensors, strict=True)
    method.ensemble = ensemble
    method.requires_grad_(False).eval()
    return Adapter(method, record, backbone)


def own_backbone(
    record: AdapterRecord, *, precision: str | None = None, device: str = "cpu", allow_download: bool = False
) -> Backbone:
    """The backbone that an adapter names; whoever made the adapter chose this name.

    So it is fetched only with `allow_download`, and a file only opened if it is called like a checkpoint. Raises
    BackboneError.
    """
    name = record.backbone["name"]
    path = resolve(name).path
    if path is not None and path.is_file() and path.suffix.lower() not in SUFFIXES:
        raise BackboneError(
            f"a file that an adapter names must be a checkpoint ({', '.join(SUFFIXES)}); if you trust it, type "
            "--backbone with its path."
        )
    own = precision or record.backbone.get("precision", "auto")
    return load_backbone(name, precision=own, device=device, download=allow_download)


def _built(
    folder: Path, record: AdapterRecord, config: MethodConfig, tensors: dict[str, torch.Tensor], backbone: Backbone
) -> Method:
    """The method with room for the tensors, and no more. AdapterError if its options do not fit them."""
    names = len(record.class_names) if record.names is None else sum(map(len, record.names.values()))
    with foreign(lambda why: _unfit(folder, record, why)):
        try:
            with Room(_shapes(tensors).values(), names):
                method = METHODS[record.method](backbone, record.prompt_names, config)
                if record.thresholds is not None:
                    judge_by_itself(method).thresholds.copy_(torch.tensor(record.thresholds))
                method.make_room(tensors)
        except MethodError as error:
            raise _unfit(folder, record, str(error)) from error
        return method


def check_start(folder: str | Path, method: str) -> tuple[AdapterRecord, MethodConfig]:
    """The record and options of an adapter to start a fit of `method` from; call it before reading images.

    Raises AdapterError if it is missing, of another method, or if its tensors are specific to its classes.
    """
    folder = find_adapter(folder)
    record = read_record(folder)
    if record.method != method:
        raise AdapterError(
            f"{folder} was made with the method {record.method!r} and cannot start a fit of {method!r}; "
            f"fit {record.method!r}, or start from another adapter"
        )
    config = _config(folder, record)
    if not METHODS[method].takes_new_classes(config) or record.multi_label:
        raise AdapterError(
            f"{folder}: the tensors that {method!r} learned there are specific to its classes, and no other fit can "
            "start from them; fit without it"
        )
    return record, config


def start_from(method: Method, folder: str | Path) -> None:
    """Initialise a method with the learned tensors of an adapter; its classes and options stay.

    Raises AdapterError as `check_start`, and for another backbone or shape. Other differences in options are logged.
    """
    folder = find_adapter(folder)
    record, config = check_start(folder, method.name)
    _check_backbone(folder, record, method.backbone)
    there, here = _plain(config.for_new_classes()), _plain(method.config.for_new_classes())
    other = "; ".join(f"{name}={there[name]} there, {here[name]} here" for name in here if there[name] != here[name])
    learned = _read_tensors(folder, record)
    tensors = {name: value for name, value in learned.items() if name not in _ENSEMBLE}
    if not tensors:
        raise AdapterError(f"{folder} holds nothing learned to start from; fit without it")
    names = [(name,) if record.names is None else record.names[name] for name in record.class_names]
    try:
        method.load_state_dict(method.for_own_classes(tensors, names))
    except MethodError as error:
        raise AdapterError(f"{folder} does not fit: {error} Options: {other or 'the same'}.") from error
    if other:
        logger.warning("The start %s was learned with other options: %s.", folder, other)
    method.started_from = record.tensors_sha256


def _check_backbone(folder: Path, record: AdapterRecord, backbone: Backbone) -> None:
    if backbone.sha256 != record.backbone["sha256"]:
        raise AdapterError(
            f"{folder} belongs to the backbone {record.backbone['name']!r} with sha256 "
            f"{record.backbone['sha256'][:12]}, but {backbone.name!r} has {backbone.sha256[:12]}; "
            "load that backbone or fit again"
        )
    tokenizer = record.backbone.get("tokenizer", "")
    if tokenizer != backbone.tokenizer.digest and tokenizer:
        raise AdapterError(
            f"{folder} was made with another tokenizer of {backbone.name!r} (sha256 {tokenizer[:12]}, here "
            f"{backbone.tokenizer.digest[:12]}), which changes its texts; put that file back or fit again"
        )


def _config(folder: Path, record: AdapterRecord) -> MethodConfig:
    with foreign(lambda why: _unfit(folder, record, why)):
        try:
            return METHODS[record.method].config_class(**record.method_config)
        except MethodError as error:
            raise _unfit(folder, record, str(error)) from error


def _unfit(folder: Path, record: AdapterRecord, why: str) -> AdapterError:
    reason = one_line(why)
    return AdapterError(
        f"{folder} does not fit this daptune's method {record.method!r} ({reason}); it was made with daptune "
        f"{record.versions.get('daptune', 'of an unknown version')}"
    )


def _read_tensors(folder: Path, record: AdapterRecord) -> dict[str, torch.Tensor]:
    blob = read_tensor_file(folder, record)
    with foreign(lambda why: damaged(folder / TENSOR_FILE, f"it is not a safetensors file ({why})")):
        return safetensors.torch.load(blob)


def _ensemble(
    folder: Path, record: AdapterRecord, tensors: dict[str, torch.Tensor], backbone: Backbone
) -> Ensemble | None:
    """Take the ensemble's tensors out of `tensors`. Raises AdapterError if they are not those of the record."""
    parts = {name: tensors.pop(name) for name in _ENSEMBLE if name in tensors}
    classes, width = len(record.class_names), backbone.clip.config.embed_dim
    kept = _ENSEMBLE if _ENSEMBLE[2] in parts else _ENSEMBLE[:2]
    expected = {name: [classes] if name.endswith("bias") else [classes, width] for name in kept if record.ensemble}
    found = _shapes(parts)
    if found != expected:
        reason = f"expected of the ensemble {expected or 'no tensors'}, found {found or 'none'}"
        raise damaged(folder / TENSOR_FILE, reason)
    if not expected:
        return None
    with foreign(lambda why: damaged(folder / JSON_FILE, f"'ensemble' is not one ({why})")):
        try:
            mix = Mix(**record.ensemble)
        except MethodError as error:
            raise damaged(folder / JSON_FILE, f"'ensemble' is not one ({error})") from error
    if mix.similarity and _ENSEMBLE[2] not in parts:
        raise damaged(
            folder / TENSOR_FILE, f"expected {_ENSEMBLE[2]!r} with the similarity of known images, found none"
        )
    weights, bias, *rest = (part.float() for part in parts.values())
    return Ensemble(weights, bias, rest[0] if rest else weights[:0], mix).to(backbone.device)


def _plain(config: Any) -> dict[str, Any]:
    """A dataclass or None as JSON values; other types, such as paths, as text."""
    found: dict[str, Any] = {} if config is None else json.loads(json.dumps(asdict(config), default=str))
    return found


def _shapes(tensors: dict[str, torch.Tensor]) -> dict[str, list[int]]:
    return {name: list(value.shape) for name, value in tensors.items()}
