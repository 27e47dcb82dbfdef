"""MVLPT: the loss of each image among its own task's classes, written out, and prompts that outlive their classes."""

from typing import Any

import pytest
import torch
from torch import Tensor

from daptune.errors import MethodError
from daptune.methods import METHODS, make_config
from daptune.methods.mvlpt import MVLPT

from .conftest import NAMES
from .plain import check_gradients, images_of, plain_cross_entropy
from .test_upt import stir

LABELS = torch.tensor([3, 0, 1, 2, 0])


def make(backbone: Any, **options: object) -> MVLPT:
    return MVLPT(backbone, NAMES, make_config("mvlpt", options))  # type: ignore[arg-type]


def plain_loss(logits: Tensor, labels: Tensor, tasks: tuple[int, ...], official: bool) -> Tensor:
    """One image at a time: which task its label lies in, and the softmax over that task's classes."""
    losses = []
    for row, y in zip(logits, labels.tolist(), strict=True):
        start = 0
        for count in tasks:
            if start <= y < start + count:
                break
            start += count
        if official:  # the others take part with a logit of 0
            row = torch.stack([row[c] if start <= c < start + count else row[c] * 0 for c in range(len(row))])
            losses.append(plain_cross_entropy(row.unsqueeze(0), torch.tensor([y])))
        else:
            losses.append(plain_cross_entropy(row[start : start + count].unsqueeze(0), torch.tensor([y - start])))
    return torch.stack(losses).mean()


@pytest.mark.parametrize("official", [False, True])
@pytest.mark.parametrize("tasks", [(4,), (1, 3), (2, 2), (1, 1, 2)])
def test_loss_and_gradients_are_those_of_the_own_task(backbone: Any, tasks: tuple[int, ...], official: bool) -> None:
    mvlpt = make(backbone, tasks=tasks, official_mask=official, network_width=8)
    stir(mvlpt)
    images = images_of(len(LABELS))
    loss = plain_loss(mvlpt.logits(images), LABELS, tasks, official)
    found = mvlpt.losses(images, LABELS)
    torch.testing.assert_close(found["total"], loss, atol=1e-5, rtol=1e-5)
    assert torch.equal(found["total"], found["cross_entropy"])
    check_gradients(found["total"], loss, [*mvlpt.parameters()])


def test_the_accuracy_of_a_batch_is_within_tasks(backbone: Any) -> None:
    logits = torch.tensor([[1.0, 0.0, 9.0, 8.0], [0.0, 1.0, 9.0, 8.0], [9.0, 8.0, 0.0, 1.0], [9.0, 8.0, 1.0, 0.0]])
    mvlpt = make(backbone, tasks=(2, 2))
    mvlpt.logits = lambda images: logits  # type: ignore[method-assign]
    mvlpt.losses(images_of(4), torch.tensor([0, 0, 3, 3]))
    assert mvlpt.batch_accuracy is not None and mvlpt.batch_accuracy.item() == 0.5


def test_without_tasks_it_is_upt(backbone: Any) -> None:
    mvlpt, upt = make(backbone), METHODS["upt"](backbone, NAMES)
    images = images_of(len(LABELS))
    assert mvlpt.state_dict().keys() == upt.state_dict().keys()
    torch.testing.assert_close(mvlpt.losses(images, LABELS)["total"], upt.losses(images, LABELS)["total"])


@pytest.mark.parametrize("depth", [0, 1])
def test_without_the_network_its_prompts_are_those_of_coop_and_vpt(backbone: Any, depth: int) -> None:
    options: dict[str, object] = {"text_tokens": 3, "vision_tokens": 2, "vision_depth": depth}
    mvlpt = make(backbone, network=False, **options)
    coop_vpt = METHODS["coop_vpt"](backbone, NAMES, make_config("coop_vpt", options))
    assert set(mvlpt.state_dict()) == {"raw_text_prompt", "raw_vision_prompt"}
    stir(mvlpt)
    coop_vpt.load_state_dict({key.removeprefix("raw_"): value for key, value in mvlpt.state_dict().items()})
    images = images_of(len(LABELS))
    torch.testing.assert_close(mvlpt.logits(images), coop_vpt.logits(images))


def test_new_classes_leave_the_tasks_behind(backbone: Any) -> None:
    mvlpt = make(backbone, tasks=(3, 1), official_attention=True)
    other = mvlpt.with_classes(["dog", "horse"])
    assert other.config == make_config("mvlpt", {"official_attention": True}) and mvlpt.config.tasks == (3, 1)
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in mvlpt.state_dict().items())
    assert "task_of_class" not in mvlpt.state_dict()


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({}, 566_400),
        ({"network": False}, 2_048 + 36_864),
        ({"network": False, "text_tokens": 16, "vision_tokens": 16}, 8_192 + 147_456),
    ],
)
def test_parameter_counts_of_vit_b_16(vit_b_16: Any, options: dict[str, Any], count: int) -> None:
    assert make(vit_b_16, **options).parameter_count == count


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tasks": (2, 3)}, r"^tasks: expected numbers that add up to the 4 classes, found \(2, 3\)\.$"),
        ({"tasks": (4, 0)}, r"^tasks: expected 1 or more classes in each task, found \(4, 0\)\.$"),
        ({"tasks": "two|2"}, r"^tasks: expected a list, each item a whole number, found 'two\|2'\."),
        ({"tasks": 4}, r"^tasks: expected a list, each item a whole number, found 4\."),
        ({"network": "perhaps"}, r"^network: expected true or false, found 'perhaps'\."),
        ({"source": "adapter"}, r"^mvlpt has no option 'source'\."),
    ],
)
def test_bad_options_are_one_line(backbone: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(MethodError, match=message) as caught:
        make(backbone, **options)
    assert "\n" not in str(caught.value)


def test_tasks_can_be_typed(backbone: Any) -> None:
    assert make(backbone, tasks="1|3").config.tasks == (1, 3)
