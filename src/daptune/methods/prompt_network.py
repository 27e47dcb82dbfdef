"""UPT's network: one small Transformer layer over all text and visual prompts.

Zang, Li, Zhou, Huang & Loy, "Unified Vision and Language Prompt Learning" (UPT), arXiv 2210.07225, section 3. Its
authors' repository holds no code; the reference is sIncerass/MVLPT trainers/mvlpt.py, `forward_mvlpt_proj`, with
clip/model.py, `ResidualAttentionBlock`. E is the network's width, n the number of tokens of both sides and all layers:

    x = [A v_1 .. A v_M, B u_1 .. B u_P, ..]                (n, E); A (E, W_text), B (E, W_vision), both with biases
    x = x + attention(norm(x));  x = x + MLP(norm(x))       one head, 4 E hidden units, QuickGELU, as in CLIP's blocks
    v' = A' x_1 .., u' = B' x_M+1 ..                        back to the widths of the towers

Differences to the reference: it passes (1, n, E) tokens to a module that expects the sequence first, so that each token
attends only to itself (`official_attention`); here tokens attend to all. It omits A and A' if W_text = E, and B and B'
if W_vision = E. It computes the maps in fp16, here in float32.
"""

import torch
from torch import Tensor, nn

from ..clip.blocks import attend
from .cocoop import first_linear


class PromptNetwork(nn.Module):
    """Maps the prompts of both towers to prompts of the same shapes."""

    def __init__(
        self, text_width: int, vision_width: int, width: int, generator: torch.Generator, *, official_attention: bool
    ) -> None:
        super().__init__()
        self.official_attention = official_attention
        self.text_in = first_linear(text_width, width, generator)
        self.vision_in = first_linear(vision_width, width, generator)
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value = first_linear(width, 3 * width, generator)
        self.attended = first_linear(width, width, generator)
        self.hidden = first_linear(width, 4 * width, generator)
        self.shrunk = first_linear(4 * width, width, generator)
        self.text_out = first_linear(width, text_width, generator)
        self.vision_out = first_linear(width, vision_width, generator)
        # as torch's multi-head attention: Xavier-uniform over the three maps together, no biases
        nn.init.xavier_uniform_(self.query_key_value.weight, generator=generator)
        nn.init.zeros_(self.query_key_value.bias)
        nn.init.zeros_(self.attended.bias)

    def forward(self, text: Tensor, vision: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (.., W_text) and (.., W_vision) -> the same shapes."""
        x = torch.cat([self.text_in(text.flatten(0, -2)), self.vision_in(vision.flatten(0, -2))])  # (n, E)
        x = x + self.attended(self._attention(self.norm_1(x)))
        h = self.hidden(self.norm_2(x))
        x = x + self.shrunk(h * (1.702 * h).sigmoid())
        words = text.shape[:-1].numel()
        return self.text_out(x[:words]).view(text.shape), self.vision_out(x[words:]).view(vision.shape)

    def _attention(self, x: Tensor) -> Tensor:
        query, key, value = self.query_key_value(x).view(1, 1, len(x), -1).chunk(3, -1)  # (1, 1 head, n, E)
        if self.official_attention:  # softmax over a sequence of one is 1
            return value[0, 0]
        return attend(query, key, value)[0, 0]
