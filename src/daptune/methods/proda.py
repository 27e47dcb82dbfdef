"""ProDA: learn many prompts and classify with the Gaussian distribution of their class features.

Lu, Liu, Zhang, Liu & Tian, "Prompt Distribution Learning", CVPR 2022, arXiv 2205.03340, section 3. Official:
bbbdylan/proda, which holds no code; the formulas are those of implementations by others.

Differences to these: contexts with the class name at the front or in the middle are used, not only assigned; the
covariance (D, C, C) is never built; a step uses all prompts, or a sample that depends only on its number.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from ..clip.suffixes import Suffixes
from ..clip.towers import LEARNED_CONTEXT
from .base import Method
from .options import Count, MethodConfig, Weight, one_of
from .text_prompts import POSITIONS, TextPromptConfig, TextPrompts, noise


@dataclass(frozen=True)
class ProDAConfig(MethodConfig):
    prompts: Count = 32
    """Number of learned contexts, Q."""
    text_tokens: Count = 16
    """Tokens of a context, M."""
    prompts_per_step: int = 0
    """Contexts drawn for the cross-entropy of a step; 0: all. The paper's 4 are faster, but the other contexts then
    follow only the orthogonality loss, with AdamW at full step size. Prediction uses all."""
    orthogonality_weight: Weight = 0.1
    """Weight of the orthogonality loss (lambda)."""
    class_position: Annotated[str, one_of(("mixed", *POSITIONS))] = "mixed"
    """Position of the class name: mixed (front of a quarter of the contexts, middle of a quarter, end of the others),
    end, middle or front. "end" is the fastest, since only its contexts share the prefix."""

    def __post_init__(self) -> None:
        super().__post_init__()
        fits = 0 <= self.prompts_per_step <= self.prompts
        self.require("prompts_per_step", fits, f"0 (all) to {self.prompts}, the number of prompts")


class ProDA(Method):
    """w_c ~ N(mu_c, Sigma) over prompts; L = L_upper + orthogonality_weight L_so; p(c|x) = softmax_c(scale z.mu_c)."""

    name = "proda"
    title = "Prompt Distribution Learning (ProDA)"
    year = 2022
    config_class = ProDAConfig
    sees = "fixed features"
    needs = frozenset({LEARNED_CONTEXT})
    config: ProDAConfig

    def build(self, generator: torch.Generator) -> None:
        """The contexts: (Q, M, W), N(0, 0.02). Mixed ones are ordered by position of the name: front, middle, end."""
        count, tokens, position = self.config.prompts, self.config.text_tokens, self.config.class_position
        mixed = {"front": count // 4, "middle": count // 4, "end": count - 2 * (count // 4)}
        self.groups = [
            (TextPrompts(self.backbone, self.prompt_names, TextPromptConfig(text_tokens=tokens, class_position=at)), n)
            for at, n in (mixed if position == "mixed" else {position: count}).items()
            if n
        ]
        self.nameless = Suffixes.build(self.backbone.tokenizer, [""], tokens)  # [. EOT]
        self.text_prompt = noise(self.clip, (count, tokens, self.clip.config.text_width), generator)

    def prompt_features(self, chosen: Sequence[int]) -> Tensor:
        """Unit class features for the contexts `chosen`, ascending: (Q', C, D)."""
        parts: list[Tensor] = []
        rows, first = self.text_prompt.unbind(), 0  # an index tensor would have to be copied to the GPU
        for prompts, count in self.groups:
            contexts = [rows[q] for q in sorted(chosen) if first <= q < first + count]
            first += count
            at_once = prompts.shared and contexts
            parts += prompts.features(torch.stack(contexts)) if at_once else [prompts.features(v) for v in contexts]
        return torch.stack(parts)

    def logit_weights(self) -> Tensor:
        """mu_c, the mean over all contexts, not normalised: (C, D)."""
        return self.prompt_features(range(len(self.text_prompt))).mean(0)

    def text_features(self) -> Tensor:
        return F.normalize(self.logit_weights(), dim=-1)

    def losses(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Cross-entropy of the upper bound for the step's contexts, orthogonality of all, and the weighted total."""
        z, count = self.image_features(images), len(self.text_prompt)
        chosen = torch.randperm(count)[: self.config.prompts_per_step or count].tolist()
        logits = upper_bound(z, self.prompt_features(chosen), labels, self.scale)
        terms = {"cross_entropy": self.cross_entropy(logits, labels), "orthogonality": self.orthogonality()}
        return {**terms, "total": terms["cross_entropy"] + self.config.orthogonality_weight * terms["orthogonality"]}

    def orthogonality(self) -> Tensor:
        """Mean over pairs p != q of |e_p . e_q|, e_q = unit text([context q, "."]): a scalar, 0 for one context."""
        e = F.normalize(self.clip.text.features(self.text_prompt, self.nameless)[:, 0], dim=-1)  # (Q, D)
        return (e @ e.mT).abs().triu(1).sum() / max(1, len(e) * (len(e) - 1) // 2)


def upper_bound(z: Tensor, w: Tensor, labels: Tensor, scale: Tensor) -> Tensor:
    """Logits whose cross-entropy bounds the expected one over w_c ~ N(mu_c, Sigma): z (B, D), w (Q, C, D) -> (B, C).

    With residuals r_q = w_q - mu and a covariance diagonal in D, A[d, i, j] = sum_q r_qid r_qjd / (Q + 1), that of j is
    scale z . mu_j + scale^2 / 2 sum_d z_d^2 (A[d, y, y] + A[d, j, j] - 2 A[d, y, j]).
    """
    mu = w.mean(0)
    r, squared = w - mu, z.square()
    own = r[:, labels]  # (Q, B, D)
    spread = squared @ r.square().sum(0).mT  # (B, C): j with itself
    both = torch.einsum("qbd,qcd->bc", squared * own, r)  # y with j
    variance = (spread.gather(1, labels.unsqueeze(1)) + spread - 2 * both) / (len(w) + 1)
    return scale * z @ mu.mT + scale.square() / 2 * variance
