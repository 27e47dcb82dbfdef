"""MVLPT: prompts learned on several tasks together, which then start the learning of another.

Shen, Yang, Zhang, Zhai, Gonzalez, Keutzer & Darrell, "Multitask Vision-Language Prompt Tuning", WACV 2024,
arXiv 2211.11720, section 3. Official: sIncerass/MVLPT trainers/mvlpt.py. The prompts are UPT's (its MUPT, 4 tokens a
side); without the network they are CoOp's and VPT's. Its MCoOp and MVPT are `coop` and `vpt` on the same joined tables.

The classes of all tasks stand in one list, task by task (`daptune.data.join_tables`), and an image competes with those
of its own task:

    L = -log softmax over the classes c of task(y) of (exp(logit_scale) z . w_c) at y

What is learned is no part of any class, so a fit on the target starts from it (`start_from`, `daptune fit --from`).

Differences to the official code: by default it has an image compete with the classes of all tasks, which is ours where
`tasks` is left out; its option for the own task multiplies the other logits by 0 and so leaves them in the softmax,
where ours leaves them out (`official_mask` repeats it); it masks at test time too, where ours has no task to know.
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
    """How many classes each task has, in the order of the classes; they add up to all. Empty: one task."""
    network: bool = True
    """Let the prompts of both sides see one another by UPT's network; without it they are those of CoOp + VPT."""
    official_mask: bool = False
    """Multiply the logits of other tasks by 0, as the official code does, in place of leaving them out."""

    def for_new_classes(self) -> Self:
        """The tasks are those of the old classes."""
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
        """What enters the towers: UPT's, or the tokens as they are."""
        if self.config.network:
            return super().unified_prompts()
        return self.raw_text_prompt, self.raw_vision_prompt

    def losses(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Cross-entropy within the task of each image, a scalar: images (B, 3, R, R), labels (B,)."""
        loss = self.cross_entropy(self.within_task(self.logits(images), labels), labels)
        return {"cross_entropy": loss, "total": loss}

    def within_task(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits (B, C) with the classes of other tasks than that of the labels (B,) at -inf: (B, C)."""
        own = self.task_of_class[labels].unsqueeze(1) == self.task_of_class
        return logits * own if self.config.official_mask else logits.masked_fill(~own, -torch.inf)
