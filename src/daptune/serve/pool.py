"""Adapters of one backbone that share passes through its image tower.

Visual prompts are inputs of the tower, so each image of a batch can have its own: (B, J, P, W). Adapters whose prompts
have the same J and P (or none) share a batch, whatever their methods and classes; each then classifies its own rows.
Methods that change the tower itself run separately (`Method.shares_image_tower`).
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor

from daptune.adapter.record import AdapterRecord, read_record
from daptune.adapter.store import load_adapter
from daptune.clip.backbone import Backbone
from daptune.errors import AdapterError, DaptuneError
from daptune.methods import METHODS, Method
from daptune.serve.engine import AdapterInfo, Answer, Pixels, Served
from daptune.serve.limits import IMAGES_SUFFIX, Refused
from daptune.serve.threads import in_own_thread


@dataclass(frozen=True, eq=False)
class Loaded(Served):
    """An adapter in memory with computed text features."""

    method: Method
    temperature: float
    prompts: Tensor | None
    """Visual prompts of its images in a shared pass: (J, P, W)."""


class AdapterPool:
    """Adapters by name, with at most `max_loaded` of them and their zero-shot classifiers in memory.

    Of the others only what a listing says is: a record is read again with its tensors.
    """

    def __init__(self, backbone: Backbone, *, max_loaded: int = 1000) -> None:
        self.backbone, self.max_loaded = backbone, max_loaded
        self._known: dict[str, tuple[Path, AdapterInfo]] = {}
        self._broken: dict[str, str] = {}  # why an adapter cannot be served, also of some that are known
        self._loaded: OrderedDict[tuple[str, bool], Loaded] = OrderedDict()  # least recently used first
        self._lock = threading.Lock()  # guards the dictionaries
        self._reading: WeakValueDictionary[tuple[str, bool], threading.Lock] = WeakValueDictionary()  # of each adapter

    def add(self, folder: Path, name: str, *, replace: bool = False) -> None:
        """Serve the adapter in `folder` as `name`; its tensors are read at the first request.

        Raises AdapterError if there is no adapter, its backbone differs, it cannot be listed or the name is taken.
        """
        info = _info(name, folder, self._record(folder), loaded=False).check()
        with self._lock:
            if name in self._known and not replace:
                raise AdapterError(
                    f"there is already an adapter named {name!r} ({self._known[name][0]}); rename the folder {folder}."
                )
            self._known[name] = folder, info
            self._forget(name)

    def try_out(self, folder: Path, name: str) -> None:
        """Do once with the adapter in `folder` all that serving it as `name` does: read, classify, list.

        Raises DaptuneError; the pool is unchanged.
        """
        record = self._record(folder)
        served = self._read(name, folder, record, zero_shot=False)
        size = self.backbone.preprocess.size
        (answer,) = in_own_thread(self.run, [served], [np.zeros((size, size, 3), np.uint8)])
        if isinstance(answer, Exception):
            raise AdapterError(f"{folder} cannot classify ({answer}); fit again") from answer
        _info(name, folder, record, loaded=True).check()

    def mark_broken(self, name: str, error: str) -> None:
        """List an adapter that cannot be served, with the reason."""
        with self._lock:
            self._broken[name] = error

    def has(self, name: str) -> bool:
        with self._lock:
            return name in self._known or name in self._broken

    def _record(self, folder: Path) -> AdapterRecord:
        record = read_record(folder)
        ours, theirs = self.backbone, record.backbone
        if theirs["sha256"] != ours.sha256:
            raise AdapterError(
                f"{folder} belongs to the backbone {theirs['name']!r} with sha256 {theirs['sha256'][:12]}, but this "
                f"server runs {ours.name!r} with {ours.sha256[:12]}; start a separate server for it."
            )
        if record.method not in METHODS:
            raise AdapterError(f"{folder} was made with the method {record.method!r}, which is not installed here.")
        return record

    def remove(self, name: str) -> None:
        """Stop serving an adapter. Its files stay; current requests are finished."""
        with self._lock:
            if name not in self._known and name not in self._broken:
                raise _unknown(name)
            self._known.pop(name, None)
            self._forget(name)

    def folder(self, name: str) -> Path:
        return self._find(name)[0]

    def adapters(self) -> list[AdapterInfo]:
        with self._lock:
            known, loaded, broken = dict(self._known), set(self._loaded), dict(self._broken)
        found = {name: AdapterInfo.broken(name, error) for name, error in broken.items()}
        for name, (folder, info) in known.items():
            if name not in broken:
                found[name] = replace(info, loaded=(name, False) in loaded, taught=_is_taught(folder))
        return [found[name] for name in sorted(found)]

    @property
    def loaded(self) -> int:
        return len(self._loaded)

    def open(self, name: str, *, zero_shot: bool = False) -> Loaded:
        """The adapter or the zero-shot classifier of its classes, read from disk if necessary. Thread-safe.

        Raises `Refused` 404 for an unknown name, DaptuneError if the adapter cannot be read.
        """
        key = name, zero_shot
        if (found := self._recall(key)) is not None:
            return found
        with self._lock:
            reading = self._reading.setdefault(key, threading.Lock())
        with reading:  # a large adapter keeps no other waiting
            if (found := self._recall(key)) is not None:
                return found
            folder, info = self._find(name)
            try:
                fresh = self._read(name, folder, self._record(folder), zero_shot)
            except DaptuneError as error:
                self.mark_broken(name, str(error).replace(f"{folder.parent}/", ""))
                raise
            with self._lock:
                self._broken.pop(name, None)
                if (now := self._known.get(name)) is not None and now[1] is info:  # not removed or replaced meanwhile
                    self._loaded[key] = fresh
                while len(self._loaded) > self.max_loaded:
                    self._loaded.popitem(last=False)
            return fresh

    def run(self, served: Sequence[Loaded], images: Sequence[Pixels]) -> list[Answer | Exception]:
        """Answers to each image by the adapter at the same position; all must have the same `batch_key`.

        To be called from one thread. An adapter that fails does not affect the results of the others.
        """
        pixels = self.backbone.preprocess.normalize(np.stack(images)).to(self.backbone.device)
        rows: dict[Loaded, list[int]] = {}
        for place, each in enumerate(served):
            rows.setdefault(each, []).append(place)
        results: dict[int, Answer | Exception] = {}
        with torch.inference_mode():
            seen = self._encode(served, pixels, same=len(rows) == 1)
            for each, places in rows.items():
                try:
                    own, ensemble = seen[places], each.method.ensemble
                    own = own if ensemble is None else each.method.encode(own)
                    found = each.method.probabilities(each.method.answer(own), each.temperature).cpu().numpy()
                    if not np.isfinite(found).all():
                        raise AdapterError("the adapter's probabilities are not numbers; its tensors are damaged")
                    known = None if ensemble is None else ensemble.known(own)
                    results |= zip(places, Answer.of(found, known), strict=True)
                except (RuntimeError, DaptuneError) as error:
                    results |= dict.fromkeys(places, error)
        return [results[place] for place in range(len(served))]

    def _encode(self, served: Sequence[Loaded], pixels: Tensor, *, same: bool) -> Tensor:
        """Input of the methods: features (B, D) of the shared pass, or the images (B, 3, R, R)."""
        if not served[0].method.shares_image_tower:
            return pixels
        own = [each.prompts for each in served if each.prompts is not None]
        prompts = None if not own else own[0] if same else torch.stack(own)
        return self.backbone.clip.encode_image(pixels, prompts, pool_prompts=served[0].method.pools_prompts)

    def _read(self, name: str, folder: Path, record: AdapterRecord, zero_shot: bool) -> Loaded:
        """Raises DaptuneError for whatever the files of an adapter can bring about."""
        try:
            return in_own_thread(self._load, name, folder, record, zero_shot)
        except (DaptuneError, Refused):
            raise
        except (Exception, MemoryError) as error:  # foreign numbers can fail anywhere in a method
            reason = " ".join(str(error).split())[:200]
            raise AdapterError(f"{folder} cannot be served ({type(error).__name__}: {reason}); fit again") from error

    def _load(self, name: str, folder: Path, record: AdapterRecord, zero_shot: bool) -> Loaded:
        if zero_shot and record.multi_label:
            raise Refused(422, f"{name!r} judges each class by itself, and zero_shot is of one class; leave it out.")
        if zero_shot:
            method: Method = METHODS["zero_shot"](self.backbone, record.prompt_names).requires_grad_(False).eval()
        else:
            method = load_adapter(folder, self.backbone).method
        shares, sizes = method.shares_image_tower, self.backbone.clip.config
        nothing = torch.zeros(1, sizes.embed_dim) if shares else torch.zeros(1, 3, sizes.image_size, sizes.image_size)
        with torch.inference_mode():
            method.answer(nothing.to(self.backbone.device))  # computes and caches the text features
            prompts = method.image_prompts() if shares else None
        temperature = 1.0 if zero_shot else record.temperature
        joins = None if prompts is None else (*prompts.shape[:2], method.pools_prompts)
        key = ("shared", joins) if shares else ("alone", name)
        judges = method.ensemble is not None and bool(method.ensemble.mix.similarity)
        levels = None if method.sigmoids is None else method.sigmoids.thresholds.cpu().numpy()
        return Loaded(_classes(record), self.backbone.preprocess, key, judges, levels, method, temperature, prompts)

    def _recall(self, key: tuple[str, bool]) -> Loaded | None:
        with self._lock:
            if (found := self._loaded.get(key)) is not None:
                self._loaded.move_to_end(key)
            return found

    def _find(self, name: str) -> tuple[Path, AdapterInfo]:
        with self._lock:
            if name not in self._known and name in self._broken:
                raise AdapterError(self._broken[name])
            if name not in self._known:
                raise _unknown(name)
            return self._known[name]

    def _forget(self, name: str) -> None:
        self._broken.pop(name, None)
        for zero_shot in (False, True):
            self._loaded.pop((name, zero_shot), None)


def _unknown(name: str) -> Refused:
    return Refused(404, f"there is no adapter named {name!r}; GET /v1/adapters lists them.")


def _info(name: str, folder: Path, record: AdapterRecord, *, loaded: bool) -> AdapterInfo:
    return AdapterInfo(
        name=name,
        method=record.method,
        classes=_classes(record),
        shared=METHODS[record.method].shares_image_tower,
        loaded=loaded,
        multi_label=record.multi_label,
        known_images=len(record.ensemble.get("similarity", ())),
        taught=_is_taught(folder),
        shots=record.shots,
        metrics=record.metrics,
    )


def _is_taught(folder: Path) -> bool:
    return folder.with_name(folder.name + IMAGES_SUFFIX).is_dir()


def _classes(record: AdapterRecord) -> list[str | int]:
    return list(record.class_names if record.labels is None else record.labels)
