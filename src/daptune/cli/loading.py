"""Adapters loaded with the options of a command."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from daptune.cli.options import RunOptions
from daptune.errors import DataError

if TYPE_CHECKING:
    from daptune.classifier import FewShotClassifier
    from daptune.predict.adapted import AdapterPredictor

P = TypeVar("P", bound="AdapterPredictor")


def load_with(adapter: Path, options: RunOptions) -> "FewShotClassifier":
    """Load a saved adapter with the device, precision, backbone and batch size of the options."""
    from daptune.classifier import load

    return _loaded(load, adapter, options)


def predictor_with(adapter: Path, options: RunOptions) -> "AdapterPredictor":
    """The same without what only a fit needs, which makes commands start in half the time."""
    from daptune.adapter.store import load_adapter
    from daptune.predict.adapted import AdapterPredictor

    return _loaded(lambda *where, **how: AdapterPredictor().hold(load_adapter(*where, **how)), adapter, options)


def _loaded(load: Callable[..., P], adapter: Path, options: RunOptions) -> P:
    if options.batch_size is not None and options.batch_size < 1:
        raise DataError(f"--batch-size must be at least 1; found {options.batch_size}")
    found = load(
        adapter,
        options.backbone,
        precision=options.precision,
        device=options.device,
        allow_download=options.allow_download,
    )
    found.batch_size = options.batch_size or found.batch_size
    return found
