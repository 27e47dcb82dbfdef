"""One measurement in a process of its own: `python -m benchmarks.measure CASE tensors.npz` prints JSON (see ROWS).

A process each, so that its peak memory (the largest resident set that the operating system saw, weights and interpreter
included) belongs to this computation alone.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks import workload
from benchmarks.host import gigabytes
from daptune.heap import memory_kept

Run = Callable[[], dict[str, Tensor]]
LEARNING_RATE = 0.0  # the optimiser does its work, the parameters stay, and every repetition computes the same


class Pieces:
    """Text features of the reference where the graphs of all would not fit in memory: part by part.

    Each part's backward starts from the gradient of its features that the repetition before found, which is this one's
    too, for the parameters stay. The warm-up finds the first.
    """

    def __init__(self) -> None:
        self.leaves: list[Tensor] = []

    def features(self, parts: Sequence[Callable[[], Tensor]]) -> list[Tensor]:
        """Those of each part, as leaves whose gradient the loss leaves behind for the next repetition."""
        known = [leaf.grad for leaf in self.leaves] or [None] * len(parts)
        self.leaves = []
        for part, gradient in zip(parts, known, strict=True):
            with torch.set_grad_enabled(gradient is not None):
                found = part()
            if gradient is not None:
                found.backward(gradient)
            self.leaves.append(found.detach().requires_grad_())
        return self.leaves


def text(
    side: str, precision: str, classes: int, piece: int | None = None, tokens: int = workload.CONTEXT_TOKENS
) -> Run:
    """Text features of all classes and the context's gradient of sum_c <w_c, r_c>, w_c unit, r_c a fixed direction.

    The sum is separable, so the reference may run `piece` classes at a time where all at once do not fit in memory.
    """
    names = workload.class_tokens(classes)
    context = workload.context(tokens).requires_grad_()
    directions = workload.directions(classes)
    if side == "reference":
        from benchmarks.reference import ReferenceCLIP

        clip = ReferenceCLIP(workload.weights())

        def features(rows: slice) -> Tensor:
            return clip.text_features(context, names[rows])
    else:
        from daptune.clip.suffixes import Suffixes

        clip = daptune_clip(precision)
        suffixes = Suffixes.build(workload.MadeUpTokenizer(names), [str(c) for c in range(classes)], len(context))

        def features(rows: slice) -> Tensor:
            return clip.text.features(context[None], suffixes)[0]

    def run() -> dict[str, Tensor]:
        context.grad = None
        found = []
        for first in range(0, classes, piece or classes):
            rows = slice(first, first + (piece or classes))
            unit = F.normalize(features(rows), dim=-1)
            (unit * directions[rows]).sum().backward()
            found.append(unit.detach())
        return {"features": torch.cat(found), "context": context.grad}

    return run


def step(side: str, precision: str, classes: int, batch: int, piece: int | None = None) -> Run:
    """One whole DAPT step: both towers, the three losses, backward, SGD. `piece` as in `Pieces`, for the reference."""
    names = workload.class_tokens(classes)
    images, labels = workload.batch(batch, classes)
    prototypes = workload.directions(classes)
    context, prompts = workload.context().requires_grad_(), workload.vision_prompt().requires_grad_()
    if side == "reference":
        from benchmarks.reference import ReferenceCLIP, dapt_losses

        clip, pieces = ReferenceCLIP(workload.weights()), Pieces()

        def losses() -> dict[str, Tensor]:
            found = None
            if piece:
                starts = range(0, classes, piece)
                parts = [partial(clip.text_features, context, names[first : first + piece]) for first in starts]
                found = torch.cat(pieces.features(parts))
            return dapt_losses(clip, context, prompts, names, prototypes, images, labels, text=found)
    else:
        method = daptune_method("dapt", precision, names, inter_weight=0.1, intra_weight=0.1)
        method.prototypes = prototypes
        method.text_prompt.data, method.vision_prompt.data = context.detach(), prompts.detach()
        context, prompts = method.text_prompt, method.vision_prompt

        def losses() -> dict[str, Tensor]:
            return method.losses(images, labels)

    optimizer = torch.optim.SGD([context, prompts], lr=LEARNING_RATE, momentum=0.9, weight_decay=5e-4)

    def run() -> dict[str, Tensor]:
        optimizer.zero_grad()
        terms = losses()
        terms["total"].backward()
        optimizer.step()
        found = {**terms, "context": context.grad, "prompts": prompts.grad}
        return {name: value for name, value in found.items() if value is not None}  # a warm-up in pieces lacks one

    return run


def method_step(side: str, precision: str, method: str, classes: int, batch: int) -> Run:
    """One whole step of a method that is not DAPT: towers, loss, backward, SGD. "network" is all but the contexts.

    The reference of CoCoOp goes image by image, as its official batch of one does; that of PLOT in `Pieces`, context by
    context, where all would need 18 GB.
    """
    names = workload.class_tokens(classes)
    images, labels = workload.batch(batch, classes)
    tensors = {name: tensor.requires_grad_() for name, tensor in workload.learned(method).items()}
    if side == "reference":
        step = reference_step(method, tensors, names, images, labels)
    else:
        ours = daptune_method(method, precision, names, **workload.OPTIONS.get(method, {}))
        ours.load_state_dict({**ours.state_dict(), **tensors})  # 2SFS also has the classifier of its second stage
        tensors = dict(ours.named_parameters())

        def step() -> Tensor:
            loss = ours.losses(images, labels)["total"]
            loss.backward()
            return loss

    optimizer = torch.optim.SGD(tensors.values(), lr=LEARNING_RATE, momentum=0.9, weight_decay=5e-4)

    def run() -> dict[str, Tensor]:
        optimizer.zero_grad()
        found = {"total": step()}
        optimizer.step()
        learned = sorted(tensors.items())  # the same order on both sides
        gradients = {name: tensor.grad.flatten() for name, tensor in learned if tensor.grad is not None}
        if "text_prompt" in gradients:  # VPT learns none, and PLOT's warm-up has none
            found["context"] = gradients.pop("text_prompt")
        return found | ({"network": torch.cat(list(gradients.values()))} if gradients else {})

    return run


def reference_step(
    method: str, tensors: dict[str, Tensor], names: list[list[int]], images: Tensor, labels: Tensor, size: Any = None
) -> Callable[[], Tensor]:
    """Loss and gradients of a batch by the straightforward algorithm."""
    from benchmarks import reference

    size = size or workload.VIT_B16
    clip = reference.ReferenceCLIP(workload.weights(size=size), size)
    pieces = Pieces()

    def cocoop() -> Tensor:
        losses = []
        for image, label in zip(images.split(1), labels.split(1), strict=True):
            losses.append(reference.cocoop_loss(clip, tensors, names, image, label) / len(images))
            losses[-1].backward()
        return torch.stack(losses).detach().sum()

    def plot() -> Tensor:
        parts = [partial(clip.text_features, context, names) for context in tensors["text_prompt"]]
        loss = reference.plot_loss(clip, torch.stack(pieces.features(parts)), images, labels)
        loss.backward()
        return loss.detach()

    def vpt() -> Tensor:
        loss = reference.vpt_loss(clip, tensors, frozen, images, labels)
        loss.backward()
        return loss.detach()

    def guided() -> Tensor:
        whole = {"tcp": reference.tcp_loss, "mmrl": reference.mmrl_loss}[method]
        loss = whole(clip, tensors, F.normalize(frozen, dim=-1), names, images, labels)
        loss.backward()
        return loss.detach()

    def as_it_is() -> Tensor:
        whole = {"coop": reference.coop_loss, "maple": reference.maple_loss, "two_sfs": reference.two_sfs_loss}[method]
        loss = whole(clip, tensors, names, images, labels)
        loss.backward()
        return loss.detach()

    if method in ("vpt", "tcp", "mmrl"):  # "a photo of a" in front of the name
        with torch.no_grad():
            frozen = clip.text_features(torch.zeros(0, size["text_width"]), names, words=4)
    return {"cocoop": cocoop, "plot": plot, "vpt": vpt, "tcp": guided, "mmrl": guided}.get(method, as_it_is)


def vision(side: str, precision: str, batch: int, backward: bool, tokens: int = workload.VISION_TOKENS) -> Run:
    """Image features with prompts; with `backward`, the prompts' gradient of sum_b <z_b, r_b> as well."""
    images, _ = workload.batch(batch, 100)
    prompts = workload.vision_prompt(tokens).requires_grad_(backward)
    directions = workload.directions(batch)
    if side == "reference":
        from benchmarks.reference import ReferenceCLIP

        tower = ReferenceCLIP(workload.weights()).visual

        def features() -> Tensor:
            return tower(images, prompts)
    else:
        clip = daptune_clip(precision)

        def features() -> Tensor:
            return clip.encode_image(images, prompts[None])

    def run() -> dict[str, Tensor]:
        prompts.grad = None
        unit = F.normalize(features(), dim=-1)
        if not backward:
            return {"features": unit}
        (unit * directions).sum().backward()
        return {"features": unit.detach(), "prompts": prompts.grad}

    return run


def zero_shot(side: str, precision: str, classes: int) -> Run:
    """Frozen features of "x x x x <name>.", for four words in front of each name; nothing is learned."""
    names = workload.class_tokens(classes)
    if side == "reference":
        from benchmarks.reference import ReferenceCLIP

        clip, empty = ReferenceCLIP(workload.weights()), torch.zeros(0, workload.VIT_B16["text_width"])

        def features() -> Tensor:
            return F.normalize(clip.text_features(empty, names, words=4), dim=-1)
    else:
        ours = daptune_method("zero_shot", precision, names)

        def features() -> Tensor:
            ours.class_weights = None  # it keeps them
            return ours.text_features()

    @torch.no_grad()
    def run() -> dict[str, Tensor]:
        return {"features": features()}

    return run


def prototypes(side: str, precision: str, batch: int, classes: int = 16) -> Run:
    """DAPT's prototypes of `batch` images: the mean unit zero-shot feature of each class."""
    images, _ = workload.batch(batch, classes)
    labels = torch.arange(batch) % classes
    if side == "reference":
        from benchmarks.reference import ReferenceCLIP

        tower = ReferenceCLIP(workload.weights()).visual

        @torch.no_grad()
        def means() -> Tensor:
            unit = F.normalize(tower(images), dim=-1)
            return torch.stack([unit[labels == label].mean(0) for label in range(classes)])
    else:
        method = daptune_method("dapt", precision, workload.class_tokens(classes))
        support = SimpleNamespace(evaluation=lambda: [(images, labels)])

        def means() -> Tensor:
            method.before_fit(support)
            return method.prototypes

    return lambda: {"features": means()}


def files(side: str, precision: str, images: int) -> Run:
    """Probabilities of so many JPEG files on disk; the reference decodes one and computes it, then the next."""
    from benchmarks import pictures

    folder = tempfile.TemporaryDirectory()
    paths = pictures.make_pictures(Path(folder.name), images)
    context, names = workload.context(), workload.class_tokens(pictures.CLASSES)
    if side == "reference":
        from benchmarks.reference import ReferenceCLIP

        clip = ReferenceCLIP(workload.weights())
        text = F.normalize(clip.text_features(context, names), dim=-1)
        predict = partial(pictures.straightforward, paths, clip, text)
    else:
        classifier = pictures.made_up_classifier(32, precision)
        classifier.method_.text_prompt.data = context
        predict = partial(pictures.streamed, paths, classifier)

    def run() -> dict[str, Tensor]:
        assert Path(folder.name).exists()  # the files live as long as this function
        return {"probabilities": predict()}

    return run


def daptune_clip(precision: str) -> Any:
    from daptune.clip.model import CLIP, CLIPConfig

    with torch.device("meta"):
        clip = CLIP(CLIPConfig(**workload.VIT_B16))
    clip.load_state_dict(workload.weights(), assign=True)
    return clip.requires_grad_(False).set_precision(precision)


def daptune_method(method: str, precision: str, names: list[list[int]], **options: Any) -> Any:
    from daptune.methods import METHODS

    backbone = SimpleNamespace(
        clip=daptune_clip(precision),
        tokenizer=workload.MadeUpTokenizer(names),
        name="made-up",
        precision=precision,
        device=torch.device("cpu"),
    )
    kind = METHODS[method]
    return kind(backbone, [str(c) for c in range(len(names))], kind.config_class(**options)).train()


def rate(precision: str, size: int = 2048, packed: bool = False) -> Run:
    """The yardstick of the machine: one product of two square matrices, 2 size^3 operations; `packed`, one of them as
    daptune keeps frozen ones."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype)
    if packed:
        from daptune.clip.frozen import linear

        frozen, bias = torch.nn.Parameter(b, requires_grad=False), torch.zeros(size, dtype=dtype)
        return lambda: {"product": linear(a, frozen, bias)}
    return lambda: {"product": a @ b}


ROWS: dict[str, Callable[..., Run]] = {
    "text": text,
    "step": step,
    "method_step": method_step,
    "vision": vision,
    "zero_shot": zero_shot,
    "prototypes": prototypes,
    "files": files,
    "rate": rate,
}


def main() -> None:
    case = json.loads(sys.argv[1])
    repeats, warmup = case.pop("repeats"), case.pop("warmup", 1)
    if threads := case.pop("threads", None):
        torch.set_num_threads(threads)
    kept = nullcontext() if case.get("side") == "reference" else memory_kept()  # as in a fit and a prediction
    run = ROWS[case.pop("row")](**case)
    before = gigabytes()
    seconds, busy = [], []
    found: dict[str, Tensor] = {}
    with kept:
        for _ in range(warmup + repeats):
            found.clear()
            start, cpu = time.perf_counter(), time.process_time()
            found = run()
            seconds.append(time.perf_counter() - start)
            busy.append(time.process_time() - cpu)
    np.savez(sys.argv[2], **{name: value.detach().float().numpy() for name, value in found.items()})
    seconds, busy = seconds[warmup:], busy[warmup:]
    result = {"seconds": seconds, "processor_seconds": busy, "peak_gb": gigabytes(), "before_gb": before}
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
