"""MVLPT: prompts learned on several tasks together, to initialise prompts for another task.

Shen, Yang, Zhang, Zhai, Gonzalez, Keutzer & Darrell, "Multitask Vision-Language Prompt Tuning", WACV 2024,
arXiv 2211.11720, section 3. Official: sIncerass/MVLPT trainers/mvlpt.py. The prompts are UPT's (its MUPT, 4 tokens per
side); without the network they are CoOp's and VPT's. Its MCoOp and MVPT are `coop` and `vpt` on the same joined tables.

The classes of all tasks form one list, task by task (`daptune.data.join_tables`). The softmax of an image covers the
classes of its own task:

    L = -log softmax over the classes c of task(y) of (exp(logit_scale) z . w_c) at y

The learned tensors are shared by all classes, so a fit on the target can start from them (`daptune fit --from`).

Differences to the official code: its default softmax covers the classes of all tasks, as here without `tasks`; its
option for the own task multiplies the other logits by 0 and so keeps them in the softmax (`official_mask`), here they
are excluded; it also masks at test time, here the task is then unknown.
"""

from dataclasses import dataclass, replace
from typing import Annotated, Self

import torch
from torch import Tensor

from .options import Fits
from .upt import UPT, UPTConfig


@dataclass(frozen=True)
class MVLPTConfig(UPTConfig):
    """Options of MVLPT: those of UPT, and the tasks."""

    tasks: Annotated[tuple[int, ...], Fits(lambda ns: min(ns, default=1) >= 1, "1 or more classes in each task")] = ()
    """Number of classes per task, in the order of the classes; the sum is the number of classes. Empty: one task."""
    network: bool = True
    """Connect the prompts of both sides by UPT's network; without it they are those of CoOp + VPT."""
    official_mask: bool = False
    """Multiply the logits of other tasks by 0, as in the official code, instead of excluding them."""

    def for_new_classes(self) -> Self:
        return replace(self, tasks=())


class MVLPT(UPT):
    """Cross-entropy among the classes of an image's own task, with UPT's prompts."""

    name = "mvlpt"
    title = "Multitask Vision-Language Prompt Tuning (MVLPT)"
    year = 2024
    config_class = MVLPTConfig
    config: MVLPTConfig
    task_of_class: Tensor

    def build(self, generator: torch.Generator) -> None:
        """UPT's tokens and network, and the task of each class (C,)."""
        super().build(generator)
        if not self.config.network:
            del self.network
        classes, tasks = len(self.class_names), self.config.tasks or (len(self.class_names),)
        self.config.require("tasks", sum(tasks) == classes, f"numbers that add up to the {classes} classes")
        owners = torch.repeat_interleave(torch.arange(len(tasks)), torch.tensor(tasks))
        self.register_buffer("task_of_class", owners.to(self.clip.device), persistent=False)

    def unified_prompts(self) -> tuple[Tensor, Tensor]:
        if self.config.network:
            return super().unified_prompts()
        return self.raw_text_prompt, self.raw_vision_prompt

    def losses(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        loss = self.cross_entropy(self.within_task(self.logits(images), labels), labels)
        return {"cross_entropy": loss, "total": loss}

    def within_task(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits (B, C), -inf for the classes of other tasks than that of the labels (B,): (B, C)."""
        own = self.task_of_class[labels].unsqueeze(1) == self.task_of_class
        return logits * own if self.config.official_mask else logits.masked_fill(~own, -torch.inf)
