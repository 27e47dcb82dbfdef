"""The loss for a table of images, set before training: with weights of the classes, or each class by itself."""

from collections.abc import Mapping
from typing import Any

import torch

from daptune.data.table import ImageTable
from daptune.data.weights import class_weights
from daptune.errors import MethodError
from daptune.methods.base import Method
from daptune.methods.sigmoids import judge_by_itself


def weigh_classes(method: Method, class_weight: str | Mapping[Any, float] | None, table: ImageTable) -> None:
    """Set the weights of the classes in the loss, and of images with any number of labels the loss for these.

    Raises MethodError for a method without a loss, or without one for such labels.
    """
    if table.multi_label:
        judge_by_itself(method)
    if class_weight is None:
        return
    if not (method.trainable or method.weighs_classes):
        raise MethodError(f"{method.name} has no loss to weigh classes in; leave out class_weight")
    method.class_weight = torch.from_numpy(class_weights(class_weight, table)).to(method.device)
