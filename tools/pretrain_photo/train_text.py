"""Train the text tower to put every text where it belongs in the joint space; needs no picture, stops and resumes."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from shared import SIZES, model, optimise
from texts import TEMPLATES, encode
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F

SCALE = 100.0


class Corpus:
    """Names inside templates, and free texts, with their vectors."""

    def __init__(self, folder: Path) -> None:
        table = json.loads((folder / "texts.json").read_text())
        saved = torch.load(folder / "texts.pt", weights_only=True)
        self.names, self.free = table["names"], table["free"]
        self.vectors, self.classes = saved["vectors"], saved["classes"]
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))

    def draw(self, batch: int, share: float) -> tuple[Tensor, Tensor]:
        """Return token ids and vectors; `share` of the batch are names, a fifth of them without a template."""
        count = round(batch * share)
        rows = torch.randint(len(self.names), (count,)).tolist()
        free = torch.randint(len(self.free), (batch - count,)).tolist()
        picks = torch.randint(len(TEMPLATES) + 6, (count,)).tolist()
        forms = [*TEMPLATES, *["{}"] * 6]
        texts = [forms[p].format(self.names[r]) for p, r in zip(picks, rows, strict=True)]
        ids = encode(self.tokenizer, texts + [self.free[r] for r in free], SIZES["context_length"])
        length = int(ids.argmax(1).max()) + 1  # EOT is the highest id
        return ids[:, :length].long(), self.vectors[rows + [len(self.names) + r for r in free]].float()


def loss_of(found: Tensor, wanted: Tensor, classes: Tensor) -> Tensor:
    """Return how differently the texts score the classes, plus their distance relative to the common dimension."""
    target, log = (SCALE * wanted @ classes.T).softmax(1), (SCALE * found @ classes.T).log_softmax(1)
    spread = 1 - float(classes[0, 0]) ** 2
    distance = (1 - (found * wanted).sum(1)) / spread
    return F.kl_div(log, target, reduction="batchmean") + 4 * distance.mean()


def main() -> None:
    """Write `text.pt` every few minutes and at the end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--names", type=float, default=0.7, help="share of names")
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--decay", type=float, default=0.4, help="share of the steps in which the rate falls to zero")
    parser.add_argument("--resume", type=Path, help="a checkpoint; --steps counts from its step")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    corpus = Corpus(options.texts)
    clip = model.TinyCLIP(model.CLIPConfig(**SIZES))
    del clip.visual
    optimizers = optimise.optimizers_of(clip, options.lr)
    first = 0
    if options.resume:
        saved = torch.load(options.resume, weights_only=True)
        clip.load_state_dict(saved["model"])
        for optimizer, state in zip(optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        first = saved["step"]
        torch.manual_seed(first)
    began = saved_at = time.time()
    mean = 0.0
    for step in range(first, first + options.steps):
        left = (first + options.steps - step) / options.steps
        for group in (g for o in optimizers for g in o.param_groups):
            group["lr"] = options.lr * min(1.0, (step + 1) / 100, left / options.decay)
        ids, wanted = corpus.draw(options.batch, options.names)
        with torch.autocast("cpu", torch.bfloat16):
            found = clip.encode_text(ids)
        loss = loss_of(found, wanted, corpus.classes)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(clip.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        clip.zero_grad()
        mean, done = mean + loss.item() / 50, step + 1
        if done % 50 == 0:
            speed = (done - first) * options.batch / (time.time() - began)
            print(f"{time.strftime('%H:%M:%S')} step {done} loss {mean:.3f} {speed:.0f} texts/s", flush=True)
            mean = 0.0
        if done == first + options.steps or time.time() - saved_at > 120:
            saved_at = time.time()
            state = {"model": clip.state_dict(), "step": done, "optimizers": [o.state_dict() for o in optimizers]}
            torch.save(state, options.out / "text.new")
            (options.out / "text.new").replace(options.out / "text.pt")


if __name__ == "__main__":
    main()
