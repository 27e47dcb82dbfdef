"""Adapt a frozen CLIP to your image classes from a few images each, by learning prompts.

    clf = daptune.FewShotClassifier(method="dapt", backbone="tiny", shots=16, seed=1)
    clf.fit(images, labels).save("adapter/")
    daptune.load("adapter/").predict(["picture.png"])

Importing this package is fast: torch is imported when a name below is first used.
"""

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

from daptune.errors import DaptuneError

if TYPE_CHECKING:
    from daptune.adapter.store import Adapter, load_adapter, save_adapter
    from daptune.classifier import FewShotClassifier, load
    from daptune.clip.backbone import Backbone, load_backbone
    from daptune.compare import compare_methods
    from daptune.data.benchmarks import read_benchmark
    from daptune.data.sources import read_source
    from daptune.labelling import suggest
    from daptune.methods import METHODS
    from daptune.train import TrainConfig, fit_method

__version__ = "0.1.0"

# name -> module, imported at first use
_LAZY = {
    "METHODS": "daptune.methods",
    "Adapter": "daptune.adapter.store",
    "Backbone": "daptune.clip.backbone",
    "FewShotClassifier": "daptune.classifier",
    "TrainConfig": "daptune.train",
    "compare_methods": "daptune.compare",
    "fit_method": "daptune.train",
    "load": "daptune.classifier",
    "load_adapter": "daptune.adapter.store",
    "load_backbone": "daptune.clip.backbone",
    "read_benchmark": "daptune.data.benchmarks",
    "read_source": "daptune.data.sources",
    "save_adapter": "daptune.adapter.store",
    "suggest": "daptune.labelling",
}

__all__ = [
    "METHODS",
    "Adapter",
    "Backbone",
    "DaptuneError",
    "FewShotClassifier",
    "TrainConfig",
    "__version__",
    "compare_methods",
    "fit_method",
    "load",
    "load_adapter",
    "load_backbone",
    "read_benchmark",
    "read_source",
    "save_adapter",
    "suggest",
]

logging.getLogger("daptune").addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'daptune' has no attribute {name!r}")
    value = getattr(import_module(_LAZY[name]), name)
    globals()[name] = value  # later accesses bypass this function
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
