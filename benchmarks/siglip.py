"""SigLIP B/16 beside transformers: `python -m benchmarks.siglip [--classes 100] [--batch 8] [--repeats 3]`.

A made-up SigLIP of the published sizes (12 layers of 768 in both towers, 64 places, 224 pixels). The reference is
transformers' modules with plain autograd: all 64 places of every class in every block. Rows: text features of the
classes with the gradient of 16 context tokens; image features of a batch; the same with the gradient of 16 visual
tokens; all of what a step of DAPT computes, cross-entropy and both dispersion losses. Both sides take turns in one
process. Prints seconds (medians), the ratios of the turns and the largest difference of features and gradients, the
latter relative to the largest entry. Needs `pip install transformers`.
"""

import argparse
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.host import keep
from benchmarks.turns import by_turns, ratio
from daptune.clip.checkpoints import read_checkpoint
from daptune.clip.model import CLIP
from daptune.clip.suffixes import Suffixes
from daptune.methods.losses import inter_dispersion, intra_dispersion

Run = Callable[[], tuple[Tensor, ...]]
TOKENS, EOS, PAD = 16, 1, 1
"""Learned tokens of each prompt, and the ids of SigLIP's vocabulary that end a text and fill it up."""


class Reference:
    """transformers' model, whose towers take prompts as embeddings."""

    def __init__(self, model: Any) -> None:
        self.text, self.vision, self.scale = model.text_model, model.vision_model, float(model.logit_scale.exp())

    def text_features(self, context: Tensor, ids: list[list[int]]) -> Tensor:
        """(M, W), C lists -> (C, D)."""
        places = self.text.embeddings.position_embedding.weight
        filled = torch.tensor([own + [PAD] * (len(places) - len(context) - len(own)) for own in ids])
        words = self.text.embeddings.token_embedding(filled)
        x = torch.cat([context.expand(len(ids), -1, -1), words], 1) + places
        x = self.text.final_layer_norm(self.text.encoder(inputs_embeds=x).last_hidden_state)
        return self.text.head(x[:, -1])

    def image_features(self, images: Tensor, prompts: Tensor) -> Tensor:
        """(B, 3, R, R), (P, W) -> (B, D)."""
        x = torch.cat([self.vision.embeddings(images), prompts.expand(len(images), -1, -1)], 1)
        return self.vision.head(self.vision.post_layernorm(self.vision.encoder(inputs_embeds=x).last_hidden_state))


class Ours:
    """daptune's towers with the same weights."""

    def __init__(self, clip: CLIP) -> None:
        self.clip, self.scale = clip, float(clip.logit_scale.exp())

    def text_features(self, context: Tensor, ids: list[list[int]]) -> Tensor:
        """(M, W), C lists -> (C, D)."""
        return self.clip.text.features(context.unsqueeze(0), Suffixes(tuple(map(tuple, ids)), (), PAD))[0]

    def image_features(self, images: Tensor, prompts: Tensor) -> Tensor:
        """(B, 3, R, R), (P, W) -> (B, D)."""
        return self.clip.encode_image(images, prompts.unsqueeze(0))


def made_up(precision: str) -> tuple[Reference, Ours]:
    """Both sides; the reference in float32."""
    from transformers import SiglipConfig, SiglipModel

    torch.manual_seed(0)
    model = SiglipModel(SiglipConfig()).eval().requires_grad_(False)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        found = read_checkpoint(Path(folder))
        with torch.device("meta"):
            clip = CLIP(found.config)
        weights = {name: tensor.clone() for name, tensor in found.tensors.items()}
    clip.load_state_dict(weights, assign=True)
    return Reference(model), Ours(clip.requires_grad_(False).set_precision(precision))


def rows(side: Reference | Ours, classes: int, batch: int) -> dict[str, Run]:
    """What is timed: each gives features or a loss, and gradients."""
    random = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random)

    ids = [[*np.random.default_rng(c).integers(2, 30_000, 1 + c % 4).tolist(), 5, EOS] for c in range(classes)]
    context, prompts = (0.02 * normal(TOKENS, 768)).requires_grad_(), (0.02 * normal(TOKENS, 768)).requires_grad_()
    images, labels = normal(batch, 3, 224, 224), torch.arange(batch) % classes
    directions, prototypes = normal(max(classes, batch), 768), F.normalize(normal(classes, 768), dim=-1)

    def learn(loss: Tensor, *learned: Tensor) -> tuple[Tensor, ...]:
        return loss.detach(), *torch.autograd.grad(loss, learned)

    def text() -> tuple[Tensor, ...]:
        w = F.normalize(side.text_features(context, ids), dim=-1)
        return learn((w * directions[:classes]).sum(), context)

    def image() -> tuple[Tensor, ...]:
        with torch.no_grad():
            return (F.normalize(side.image_features(images, prompts), dim=-1),)

    def image_gradient() -> tuple[Tensor, ...]:
        z = F.normalize(side.image_features(images, prompts), dim=-1)
        return learn((z * directions[:batch]).sum(), prompts)

    def step() -> tuple[Tensor, ...]:
        w = F.normalize(side.text_features(context, ids), dim=-1)
        z = F.normalize(side.image_features(images, prompts), dim=-1)
        loss = F.cross_entropy(side.scale * z @ w.mT, labels)
        loss = loss + inter_dispersion(w, 2.0) + intra_dispersion(z, prototypes[labels])
        return learn(loss, context, prompts)

    return {
        f"text features and gradient, {classes} classes": text,
        f"image features, {batch} images": image,
        f"image features and gradient, {batch} images": image_gradient,
        f"a whole DAPT step, {classes} classes, batch {batch}": step,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precision", nargs="+", choices=["fp32", "bf16"], default=["fp32", "bf16"])
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    found = []
    print("| row | precision | reference, s | daptune, s | times faster | difference |\n|---|---|---|---|---|---|")
    for precision in options.precision:
        sides = [rows(side, options.classes, options.batch) for side in made_up(precision)]
        for name, plain in sides[0].items():
            runs = {"reference": plain, "daptune": sides[1][name]}
            results = [run() for run in runs.values()]  # the first run of each is not measured
            differs = max(float((a - b).abs().max() / a.abs().max()) for a, b in zip(*results, strict=True))
            times = list(by_turns(runs, options.repeats).values())
            found.append({"row": name, "precision": precision, "seconds": times, "difference": differs})
            (reference, ours), spread = map(statistics.median, times), ratio(*times)
            print(f"| {name} | {precision} | {reference:.2f} | {ours:.2f} | {spread} | {differs:.0e} |", flush=True)
    keep("siglip", {"threads": options.threads, "rows": found}, options.out)


if __name__ == "__main__":
    main()
