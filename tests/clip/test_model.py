"""The towers against the algorithm written out in plain tensor code, one image, one text, one head at a time."""

import math
from dataclasses import replace
from typing import Literal

import pytest
import torch
from torch import Tensor

from daptune.clip import frozen, model
from daptune.clip.blocks import Block
from daptune.clip.model import CLIP, CLIPConfig
from daptune.errors import BackboneError

CONFIG = CLIPConfig(
    embed_dim=24, image_size=32, patch_size=8, vision_width=32, vision_layers=3, vision_heads=2, vision_mlp=64,
    context_length=20, vocab_size=60, text_width=16, text_layers=3, text_heads=2, text_mlp=40,
)  # fmt: skip


def made_up_clip(config: CLIPConfig = CONFIG, seed: int = 0) -> CLIP:
    """A CLIP whose weights are drawn from `seed`, of a size that keeps its features apart."""
    clip = CLIP(config)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in clip.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        scale = parameter.shape[-1] ** -0.5 if parameter.ndim > 1 else 0.1
        parameter.data = noise * scale + (1.0 if "ln_" in name and name.endswith("weight") else 0.0)
    clip.logit_scale.data.fill_(math.log(100))
    return clip


def plain_block(block: Block, x: Tensor, causal: bool, activation: str) -> Tensor:
    """One sequence (L, W) through a block, head by head, with the written-out activation."""
    width, heads = x.shape[1], block.attn.heads
    normed = plain_norm(block.ln_1, x)
    q, k, v = (normed @ block.attn.in_proj_weight.T + block.attn.in_proj_bias).split(width, -1)
    found = []
    for head in range(heads):
        part = slice(head * width // heads, (head + 1) * width // heads)
        scores = q[:, part] @ k[:, part].T / math.sqrt(width // heads)
        if causal:
            scores = scores + torch.full_like(scores, -torch.inf).triu(1)
        found.append(scores.softmax(-1) @ v[:, part])
    x = x + torch.cat(found, -1) @ block.attn.out_proj.weight.T + block.attn.out_proj.bias
    hidden = plain_norm(block.ln_2, x) @ block.mlp.c_fc.weight.T + block.mlp.c_fc.bias
    if activation == "quick_gelu":
        hidden = hidden * torch.sigmoid(1.702 * hidden)
    else:
        hidden = 0.5 * hidden * (1 + torch.erf(hidden / math.sqrt(2)))
    return x + hidden @ block.mlp.c_proj.weight.T + block.mlp.c_proj.bias


def plain_norm(norm: torch.nn.LayerNorm, x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    variance = centred.square().mean(-1, keepdim=True)
    return centred / (variance + norm.eps).sqrt() * norm.weight + norm.bias


def plain_image(clip: CLIP, image: Tensor, prompts: Tensor | None, where: str) -> Tensor:
    """One image (3, R, R) with prompts (J, P, W) `beside` the class token after ln_pre, or at the `end` before it."""
    return plain_tokens(clip, image, prompts, where)[0]


def plain_tokens(clip: CLIP, image: Tensor, prompts: Tensor | None, where: str) -> Tensor:
    """The projected feature of every token of the last block, prompts among them: (L, D)."""
    config, tower = clip.config, clip.visual
    side, p = config.image_size // config.patch_size, config.patch_size
    patches = []
    for row in range(side):
        for column in range(side):
            patch = image[:, row * p : (row + 1) * p, column * p : (column + 1) * p]
            patches.append(tower.conv1.weight.flatten(1) @ patch.flatten())
    x = torch.stack([tower.class_embedding, *patches]) + tower.positional_embedding
    if prompts is not None and where == "end":
        x = torch.cat([x, prompts[0]])
    x = plain_norm(tower.ln_pre, x)
    if prompts is not None and where == "beside":
        x = torch.cat([x[:1], prompts[0], x[1:]])
    for layer, block in enumerate(tower.transformer.blocks):
        if prompts is not None and 0 < layer < len(prompts):
            count = prompts.shape[1]
            kept = (x[:1], x[1 + count :]) if where == "beside" else (x[:-count],)
            new = (kept[0], prompts[layer], kept[1]) if where == "beside" else (kept[0], prompts[layer])
            x = torch.cat(new)
        x = plain_block(block, x, False, config.activation)
    return plain_norm(tower.ln_post, x) @ tower.proj


def plain_text(clip: CLIP, embeddings: Tensor, eot: int) -> Tensor:
    """One text, all its (padded) token embeddings (T, W), read at position `eot`."""
    x = embeddings + clip.text.positional_embedding[: len(embeddings)]
    for block in clip.text.transformer.blocks:
        x = plain_block(block, x, True, clip.config.activation)
    return plain_norm(clip.text.ln_final, x[eot : eot + 1])[0] @ clip.text.text_projection


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
@pytest.mark.parametrize("where", ["beside", "end"])
@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_image_features_and_prompt_gradients(activation: str, where: str, depth: int) -> None:
    clip = made_up_clip(replace(CONFIG, activation=activation))
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(3, 3, 32, 32, generator=generator)
    weights = torch.randn(3, 24, generator=generator)
    prompts = torch.randn(depth, 4, 32, generator=generator, requires_grad=True) if depth else None
    ours = clip.encode_image(images, prompts, before_ln_pre=where == "end")
    plain = torch.stack([plain_image(clip, image, prompts, where) for image in images])
    torch.testing.assert_close(ours, plain, atol=1e-5, rtol=1e-5)
    if prompts is not None:
        (found,) = torch.autograd.grad((ours * weights).sum(), prompts)
        (expected,) = torch.autograd.grad((plain * weights).sum(), prompts)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_one_prompt_set_an_image_equals_each_alone() -> None:
    clip = made_up_clip()
    images, prompts = torch.randn(3, 3, 32, 32), torch.randn(3, 2, 5, 32)
    together = clip.encode_image(images, prompts)
    alone = torch.cat([clip.encode_image(images[i : i + 1], prompts[i]) for i in range(3)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_features_in_front_of_the_projection(precision: Literal["fp32", "bf16"]) -> None:
    clip, images = made_up_clip(), torch.randn(3, 3, 32, 32)
    prompts = torch.randn(2, 4, 32)
    pooled = clip.set_precision(precision).encode_image(images, prompts, projected=False)
    assert pooled.shape == (3, 32) and pooled.dtype == torch.float32
    bare = made_up_clip()
    bare.visual.proj.data = torch.eye(32)
    plain = torch.stack([plain_image(bare, image, prompts, "beside") for image in images])
    torch.testing.assert_close(pooled, plain, atol=1e-5 if precision == "fp32" else 0.1, rtol=1e-5)
    projected = (pooled.to(clip.dtype) @ clip.visual.proj).float()
    torch.testing.assert_close(projected, clip.encode_image(images, prompts), atol=0, rtol=0)


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_patches_have_features_of_their_own(depth: int) -> None:
    clip, images = made_up_clip(), torch.randn(3, 3, 32, 32)
    prompts = torch.randn(depth, 4, 32, requires_grad=True) if depth else None
    ours = clip.encode_image(images, prompts, before_ln_pre=True, patches=True)
    plain = torch.stack([plain_tokens(clip, image, prompts, "end") for image in images])[:, : 1 + clip.config.patches]
    assert ours.shape == (3, 1 + clip.config.patches, 24) and ours.dtype == torch.float32
    torch.testing.assert_close(ours, plain, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours[:, 0], clip.encode_image(images, prompts, before_ln_pre=True))
    if prompts is not None:
        (found,) = torch.autograd.grad(ours.pow(3).sum(), prompts)
        (expected,) = torch.autograd.grad(plain.pow(3).sum(), prompts)
        torch.testing.assert_close(found / expected.abs().max(), expected / expected.abs().max(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("chunk", [10_000, 40])
def test_text_features_need_no_padding(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daptune.clip.towers.TEXT_CHUNK_TOKENS", chunk)
    clip, generator = made_up_clip(), torch.Generator().manual_seed(3)
    tokens = torch.zeros(6, 20, dtype=torch.long)
    for row, length in enumerate([3, 9, 5, 12, 4, 7]):
        tokens[row, :length] = torch.randint(1, 58, (length,), generator=generator)
        tokens[row, 0], tokens[row, length - 1] = 58, 59
    ours = clip.encode_text(tokens)
    plain = torch.stack([plain_text(clip, clip.text.token_embedding(row), int(row.argmax())) for row in tokens])
    torch.testing.assert_close(ours, plain, atol=1e-5, rtol=1e-5)
    embeddings = clip.text.token_embedding(tokens).requires_grad_()
    (found,) = torch.autograd.grad(
        clip.text.encode_embeddings(embeddings, tokens.argmax(-1) + 1).square().sum(), embeddings
    )
    (expected,) = torch.autograd.grad(
        sum(plain_text(clip, e, int(t.argmax())).square().sum() for e, t in zip(embeddings, tokens, strict=True)),
        embeddings,
    )
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_precision_touches_matrices_alone_and_features_stay_close() -> None:
    images = torch.randn(2, 3, 32, 32)
    exact = made_up_clip().encode_image(images)
    clip = made_up_clip().set_precision("bf16")
    found = clip.encode_image(images)
    assert found.dtype == torch.float32
    assert torch.cosine_similarity(exact, found).min() > 0.999
    for name, parameter in clip.named_parameters():
        kept = any(part in name for part in ("ln_", "embedding", "logit_scale"))
        assert parameter.dtype == (torch.float32 if kept else torch.bfloat16), name


def test_frozen_weights_get_no_gradient_and_bad_depth_is_one_line() -> None:
    clip = made_up_clip()
    assert not any(parameter.requires_grad for parameter in clip.parameters())
    with pytest.raises(BackboneError, match="depth must be 1 to 3"):
        clip.encode_image(torch.zeros(1, 3, 32, 32), torch.zeros(4, 1, 32))
    with pytest.raises(BackboneError, match="not a multiple"):
        replace(CONFIG, vision_heads=5)


def test_recomputed_blocks_keep_less_and_give_the_same_bits() -> None:
    clip = made_up_clip(replace(CONFIG, vision_layers=6))
    images, prompts = torch.randn(4, 3, 32, 32), torch.randn(6, 3, 32, requires_grad=True)
    kept: dict[bool, int] = {}
    gradients = []
    for recompute in (False, True):
        clip.visual.recompute = recompute
        held: dict[int, int] = {}

        def keep(tensor: torch.Tensor, held: dict[int, int] = held) -> torch.Tensor:
            held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        weights = {p.untyped_storage().data_ptr() for p in clip.parameters()}
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            features = clip.encode_image(images, prompts)
            kept[recompute] = sum(size for place, size in held.items() if place not in weights)
        gradients += torch.autograd.grad(features.square().sum(), prompts)
    assert torch.equal(*gradients)
    assert kept[True] < kept[False] / 2


@pytest.mark.parametrize("sets", [None, (), (5,)], ids=["no prompts", "one set", "a set an image"])
@pytest.mark.parametrize("patches", [False, True])
def test_groups_of_images_change_neither_features_nor_gradients(
    monkeypatch: pytest.MonkeyPatch, sets: tuple[int, ...] | None, patches: bool
) -> None:
    clip, generator = made_up_clip(), torch.Generator().manual_seed(1)
    images = torch.randn(5, 3, 32, 32, generator=generator)
    prompts = None if sets is None else torch.randn(*sets, 2, 3, 32, generator=generator).requires_grad_()
    found, sizes = [], []
    clip.visual.register_forward_pre_hook(lambda tower, given: sizes.append(len(given[0])))
    for numbers in (model.IMAGE_CHUNK_NUMBERS, 2 * (17 + 3) * 64):  # all, then about two at a time
        monkeypatch.setattr(model, "IMAGE_CHUNK_NUMBERS", numbers)
        features = clip.encode_image(images, prompts, patches=patches)
        gradient = torch.zeros(()) if prompts is None else torch.autograd.grad(features.square().sum(), prompts)[0]
        found.append((features, gradient))
    assert sizes == [5, 3, 2]
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
def test_every_matrix_of_a_block_is_multiplied_in_its_own_layout(activation: str) -> None:
    block = made_up_clip(replace(CONFIG, activation=activation)).visual.transformer.blocks[0]
    block(torch.randn(1, 3, CONFIG.vision_width))
    if torch.float32 in frozen.PACKABLE:
        matrices = [p for name, p in block.named_parameters() if p.dim() == 2]
        assert len(matrices) == 4 and all(len(frozen._packs[p]) == 1 for p in matrices)
