"""What each of the processes of test_parallel.py does; a module of its own, so that they can import it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from daptune import METHODS, load_backbone
from daptune.bench.datasets import read_dataset
from daptune.data import ImageLoader
from daptune.methods import make_config
from daptune.train import TrainConfig, fit_method
from daptune.train.parallel import Ranks, joined

SGD = TrainConfig(epochs=2, optimizer="sgd", lr=0.5, weight_decay=5e-4, warmup_epochs=0, clip_norm=5.0)
WEIGHTS = {"inter_weight": 1.0, "intra_weight": 10.0}
RUNS: dict[str, tuple[str, dict[str, Any], TrainConfig, bool]] = {
    "dapt": ("dapt", WEIGHTS, SGD, False),
    "adamw": ("dapt", WEIGHTS, TrainConfig(epochs=2, lr=0.01), False),
    "accumulate": ("coop", {}, replace(SGD, accumulate=2), False),
    "whole": ("coop_vpt", {}, SGD, True),
}


def train_all(folder: Path) -> int:
    """Each of RUNS on eleven pictures in batches of five, the last of one; leaves what was learned, and the history."""
    with joined("cpu"):
        rank = Ranks().rank
        backbone = load_backbone("tiny", precision="fp32")
        table = read_dataset("demo", folder).train
        table = table.subset(range(0, len(table), len(table) // 11 + 1))
        few = replace(table, class_names=table.class_names[: int(table.labels.max()) + 1])
        for name, (method_name, options, config, whole) in RUNS.items():
            method_class = type("Whole", (METHODS[method_name],), {"whole_batch": whole})
            options = options | {"text_tokens": 4} | ({} if method_name == "coop" else {"vision_tokens": 4})
            method = method_class(backbone, few.class_names, make_config(method_name, options))
            loader = ImageLoader(few, backbone.preprocess, 5, seed=1, augment=True, shuffle=True, drop_last=False)
            if method_name == "dapt":
                method.config = replace(method.config, intra_weight=WEIGHTS["intra_weight"])
                method.before_fit = _prototypes(method)  # classes without a picture have none
            history = fit_method(method, loader, config, run_dir=folder / f"{name}-run", val=loader)
            tensors: dict[str, Tensor] = dict(method.state_dict())
            safetensors.torch.save_file(tensors, folder / f"{name}-{rank}.safetensors")
            assert len(history.rows) == 2 and history.best_epoch is not None
    return rank


def _prototypes(method: Any) -> Any:
    def before_fit(train: Any, val: Any = None) -> None:
        from daptune.methods.support import class_sums, view_features

        features, labels = view_features(method.clip, train, 0, unit=True)
        method.prototypes = class_sums(features, labels, len(method.class_names))

    return before_fit
