"""Vocabulary words nearest to learned text prompts: what a context says, as far as it can be read."""

from typing import Any

import torch

from daptune.methods import Method


def nearest_words(method: Method, count: int) -> list[dict[str, Any]]:
    """For each learned text token the vocabulary entries nearest to it in the embedding space, nearest first.

    Euclidean distance, as CoOp's interpret_prompt.py. Empty for methods without a common text prompt (M, W).
    """
    prompt = method.state_dict().get("text_prompt")
    table = method.clip.token_embedding.weight.detach().float()  # (vocabulary, W)
    if prompt is None or prompt.dim() != 2 or prompt.shape[1] != table.shape[1]:
        return []
    spoken = table.norm(dim=1) > 0  # a backbone may leave out entries that it never learned
    distances = torch.cdist(prompt.float(), table).masked_fill(~spoken, float("inf"))  # (M, vocabulary)
    near = distances.topk(min(count, int(spoken.sum())), largest=False)
    return [
        {
            "token": place + 1,
            "words": [
                {"word": method.backbone.tokenizer.decode([index]).strip(), "distance": distance}
                for index, distance in zip(indices, values, strict=True)
            ],
        }
        for place, (indices, values) in enumerate(
            zip(near.indices.tolist(), near.values.tolist(), strict=True)
        )
    ]
