"""Weights of the classes in the loss, set before training."""

from collections.abc import Mapping
from typing import Any

import torch

from daptune.data.table import ImageTable
from daptune.data.weights import class_weights
from daptune.errors import MethodError
from daptune.methods.base import Method


def weigh_classes(method: Method, class_weight: str | Mapping[Any, float] | None, table: ImageTable) -> None:
    """Set the weights of the classes in the loss, before training. Raises MethodError for a method without a loss."""
    if class_weight is None:
        return
    if not (method.trainable or method.weighs_classes):
        raise MethodError(f"{method.name} has no loss to weigh classes in; leave out class_weight")
    method.class_weight = torch.from_numpy(class_weights(class_weight, table)).to(method.device)
