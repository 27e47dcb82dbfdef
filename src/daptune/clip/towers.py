"""What the two towers of a CLIP are to the rest of the package, and what one may have that another lacks.

A tower says in `has` what it gives, a method in `needs` what it takes; whether the method runs follows from the two.
A family of towers is one file with a subclass of each, and a row of `daptune.clip.model.FAMILIES`.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..errors import BackboneError
from .blocks import Block, Transformer
from .suffixes import Suffixes

VISUAL_TOKENS = "visual tokens"
PATCH_FEATURES = "patch features"
VISUAL_PROJECTION = "a visual projection"
IMAGE_ATTENTION = "attention matrices in the image tower"
LEARNED_CONTEXT = "learned context in the text"
CAUSAL_TEXT = "causal text"
JOINING_VISUAL_TOKENS = "visual tokens that join at a middle block"
JOINING_TEXT_TOKENS = "text tokens that join at a middle block"

TEXT_CHUNK_TOKENS = 8_192  # more tokens than this are encoded in chunks, recomputed in the backward pass


@dataclass(frozen=True)
class Halfway:
    """Hidden states of texts at the input of a block, laid out by their tower."""

    block: int
    common: Tensor
    """Of what the texts share."""
    own: Tensor
    """Of what is theirs alone."""


class VisionTower(nn.Module, ABC):
    """Images, and visual tokens where it has them, to features."""

    has: ClassVar[frozenset[str]]
    last: ClassVar[str | None]
    """A parameter of the last norm; exported int8 files round the matrices before it. None: it has convolutions."""
    transformer: Transformer
    """Its blocks, if it has IMAGE_ATTENTION."""
    recompute = False
    """Recompute blocks in the backward pass: less memory for one more forward pass."""

    @abstractmethod
    def forward(
        self,
        images: Tensor,
        prompts: Tensor | None = None,
        *,
        before_ln_pre: bool = False,
        pool_prompts: bool = True,
        projected: bool = True,
        patches: bool = False,
        through: Sequence[Block] | None = None,
    ) -> Tensor:
        """(B, 3, R, R) -> (B, D) float32, with options and other shapes as `CLIP.encode_image`."""

    @abstractmethod
    def joining(self, tokens: Tensor) -> Tensor:
        """Visual tokens (J, P, W) that belong before the tower's first norm, as they are behind it."""

    @abstractmethod
    def widest(self, prompts: int) -> int:
        """Values of the widest activation of an image with so many visual tokens."""

    def projection(self) -> Tensor:
        """The matrix (W, D) behind the tower. Raises BackboneError for a tower without VISUAL_PROJECTION."""
        raise BackboneError("this image tower has no projection; a method that learns one must say so in its `needs`.")

    def below(self, images: Tensor, block: int) -> Tensor:
        """Hidden states of class token and patches at the input of a block: (B, 3, R, R) -> (B, 1 + G, W) float32.

        Raises BackboneError for a tower without JOINING_VISUAL_TOKENS.
        """
        raise BackboneError("no visual tokens join this image tower at a middle block; say so in the method's `needs`.")

    def above(self, states: Tensor, block: int, tokens: Tensor | None = None) -> Tensor:
        """From those states (B, 1 + G, W) to the class token and n visual tokens behind the last norm, before a
        projection: (B, 1 + n, W) float32.

        The visual tokens (J, n, W) join at the input of the block; in each of the J - 1 later ones, new ones replace
        their outputs. Without them, n = 0. Raises BackboneError as `below`.
        """
        raise BackboneError("no visual tokens join this image tower at a middle block; say so in the method's `needs`.")

    def project(self, pooled: Tensor, matrix: Tensor) -> Tensor:
        """Features of what `forward` gives without `projected` (.., W), with a matrix (W, D) for `projection`: (.., D)
        float32. A bias behind the projection stays that of the tower."""
        return pooled @ matrix

    def each_patch(self, images: Tensor, prompts: Tensor | None = None) -> Tensor:
        """Features of the patches that show where something is: (B, 3, R, R) -> (B, G, D) float32."""
        return self(images, prompts, patches=True)[:, 1:]

    def matrices(self) -> tuple[nn.Parameter, ...]:
        """Matrices beside those of layers, stored in the precision of the tower."""
        return ()


class TextTower(nn.Module, ABC):
    """Token ids, or learned tokens in their place, to text features."""

    has: ClassVar[frozenset[str]]
    transformer: Transformer
    token_embedding: nn.Module
    positional_embedding: nn.Parameter

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """Type of its matrices."""

    @abstractmethod
    def places(self, longest: int) -> int:
        """Positions that must be given of texts whose longest has so many tokens."""

    @abstractmethod
    def features(
        self,
        context: Tensor,
        suffixes: Suffixes,
        deep: Tensor | None = None,
        *,
        through: Sequence[Block] | None = None,
    ) -> Tensor:
        """Text features, not normalised, of N contexts x C classes: context (N, M, W) -> (N, C, D) float32.

        `deep` (J - 1, m, W) or (N, J - 1, m, W), m <= M, replaces the outputs at the first m positions of the context
        at the input of blocks 1..J - 1. `through` replaces the tower's blocks (`daptune.clip.lora`).
        """

    @abstractmethod
    def encode_embeddings(self, embeddings: Tensor, lengths: Tensor) -> Tensor:
        """Text features of token embeddings (C, T, W) without positions, lengths (C,) including the end -> (C, D)
        float32, not normalised."""

    @abstractmethod
    def encode(self, tokens: Tensor) -> Tensor:
        """Text features of whole texts, not normalised: ids (C, T) of the tokenizer -> (C, D) float32."""

    def below(self, context: Tensor, suffixes: Suffixes, block: int) -> Halfway:
        """Hidden states at the input of a block of the texts with this context (M, W).

        Raises BackboneError for a tower without JOINING_TEXT_TOKENS.
        """
        raise BackboneError("no tokens join the texts of this tower at a middle block; say so in the method's `needs`.")

    def above(
        self, halfway: Halfway, suffixes: Suffixes, common: Tensor | None = None, own: Tensor | None = None
    ) -> Tensor:
        """From those states to text features, not normalised: (C, D) float32.

        `common` (J, n, W) joins behind the start of every text at the input of the block; in each of the J - 1 later
        ones, new tokens replace their outputs. `own` (C, M, W) takes the place of the context, a class's own, and is
        not replaced. Raises BackboneError as `below`.
        """
        raise BackboneError("no tokens join the texts of this tower at a middle block; say so in the method's `needs`.")

    def embed(self, ids: Sequence[Any] | Tensor) -> Tensor:
        """Token embeddings, without positions: (..) -> (.., W) float32."""
        table = self.token_embedding
        found: Tensor = table(torch.as_tensor(ids, dtype=torch.int64, device=self.positional_embedding.device))
        return found

    def row(self, token: int) -> Tensor:
        """The embedding of one token, (W,). Unlike `embed`, it copies nothing to the device."""
        table = self.token_embedding
        return table.weight[token] if isinstance(table, nn.Embedding) else self.embed([token])[0]

    def matrices(self) -> tuple[nn.Parameter, ...]:
        """Matrices beside those of layers, stored in the precision of the tower."""
        return ()
