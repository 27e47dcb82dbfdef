"""TCP: features, loss and gradients against plain loops, one text at a time; its network; parameter counts."""

from typing import Any

import pytest
import torch
from torch import Tensor

from daptune.errors import MethodError
from daptune.methods import make_config
from daptune.methods.tcp import TCP

from ..clip.test_model import plain_block, plain_norm
from .conftest import NAMES
from .plain import check_gradients, images_of, plain_cross_entropy, put

LABELS = torch.tensor([1, 3, 0])


def make(backbone: Any, **options: object) -> TCP:
    method = TCP(backbone, NAMES, make_config("tcp", options))  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5)))
    return method


def plain_feature(backbone: Any, text: str, context: Tensor, own: Tensor, block: int) -> Tensor:
    """The unit feature (D,) of a text of 77 tokens: the context in places 1..M before block 0, p before `block`."""
    clip, ids = backbone.clip, backbone.tokenizer([text])[0]
    x = put(clip.text.token_embedding(ids), context) + clip.text.positional_embedding
    for place, layer in enumerate(clip.text.transformer.blocks):
        x = plain_block(layer, put(x, own) if place == block else x, True, clip.config.activation)
    eot = int(ids.argmax())
    feature = plain_norm(clip.text.ln_final, x[eot : eot + 1])[0] @ clip.text.text_projection
    return feature / feature.norm()


def plain_network(method: TCP, t: Tensor) -> Tensor:
    """p (M, W) of one frozen feature t (D,), number by number."""
    first, second = method.class_net.linear1, method.class_net.linear2
    hidden = [(row * t).sum() + bias for row, bias in zip(first.weight, first.bias, strict=True)]
    hidden = [h / (1 + (-1.702 * h).exp()) for h in hidden]
    rows = zip(second.weight, second.bias, strict=True)
    made = [sum(a * h for a, h in zip(row, hidden, strict=True)) + bias for row, bias in rows]
    return torch.stack(made).view(method.tokens, -1)


@pytest.mark.parametrize(
    ("options", "phrase", "frozen", "block"),
    [
        ({}, "X X X X {}.", "a photo of a {}.", 2),  # the share 8 / 12 of three blocks
        (
            {"first_block": 2, "phrase": "person doing {}", "text_tokens": 2, "templates": "an {}!"},
            "X X person doing {}", "an {}!", 1,
        ),
    ],
)  # fmt: skip
def test_features_loss_and_gradients_are_the_written_out_ones(
    options: dict[str, object], phrase: str, frozen: str, block: int, backbone: Any
) -> None:
    method, images = make(backbone, **options), images_of(3)
    names = [name.replace("_", " ") for name in NAMES]
    t = [backbone.clip.encode_text(backbone.tokenizer([frozen.format(name)]))[0] for name in names]
    t = [row / row.norm() for row in t]
    own = [plain_network(method, row) for row in t]
    texts = [phrase.format(name) for name in names]
    w = [plain_feature(backbone, text, method.text_prompt, p, block) for text, p in zip(texts, own, strict=True)]
    torch.testing.assert_close(method.text_features(), torch.stack(w), atol=1e-5, rtol=1e-5)
    z = backbone.clip.encode_image(images)
    logits = 100 * z / z.norm(dim=-1, keepdim=True) @ torch.stack(w).mT
    torch.testing.assert_close(method.logits(images) / 100, logits / 100, atol=1e-5, rtol=1e-5)
    distance = sum(1 - (a * b).sum() for a, b in zip(w, t, strict=True)) / 4
    losses = method.losses(images, LABELS)
    torch.testing.assert_close(losses["knowledge"], distance, atol=1e-5, rtol=1e-5)
    assert 0 <= losses["knowledge"].item() <= 2
    total = plain_cross_entropy(logits, LABELS) + 8 * distance
    torch.testing.assert_close(losses["total"], total, atol=1e-4, rtol=1e-5)
    check_gradients(losses["total"], total, list(method.parameters()))


def test_the_network_starts_as_torchs_linear_layers_and_the_context_as_noise_or_words(backbone: Any) -> None:
    method = TCP(backbone, NAMES)
    assert method.text_prompt.shape == (4, 16) and 0.01 < float(method.text_prompt.detach().std()) < 0.03
    for layer, inputs, outputs in ((method.class_net.linear1, 24, 8), (method.class_net.linear2, 8, 64)):
        assert layer.weight.shape == (outputs, inputs)
        for values in (layer.weight.detach(), layer.bias.detach()):
            assert 0.6 < float(values.abs().max()) * inputs**0.5 <= 1
    words = TCP(backbone, NAMES, make_config("tcp", {"context_init": "a photo of a"}))  # type: ignore[arg-type]
    ids = backbone.tokenizer.encode("a photo of a")
    assert torch.equal(words.text_prompt, backbone.clip.text.token_embedding.weight[ids])


def test_sizes_of_vit_b_16(vit_b_16: Any) -> None:
    """2,048 of the context, 65,664 and 264,192 of the network; the ninth of twelve blocks."""
    method = TCP(vit_b_16, NAMES)
    assert method.parameter_count == 331_904 == 2_048 + 65_664 + 264_192 and method.block == 8
    assert method.trains_on_features and method.shares_image_tower and method.joins_ensemble


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"first_block": 4},
            r"^first_block: expected 0 \(the paper's share\) to 3, the blocks of the tower, found 4\.",
        ),
        (
            {"first_block": 1},
            r"^first_block: expected 0 \(the paper's share of the tower\) or a block from 2, found 1\.",
        ),
        ({"phrase": "a photo"}, r"^phrase: expected one \{\} in it for the class name, found 'a photo'\."),
        ({"knowledge_weight": -1}, r"^knowledge_weight: expected 0 or more, found -1.0\."),
        ({"class_specific": True}, r"^tcp has no option 'class_specific'\."),
    ],
)
def test_bad_options_are_one_line(backbone: Any, options: dict[str, object], message: str) -> None:
    with pytest.raises(MethodError, match=message) as caught:
        make(backbone, **options)
    assert "\n" not in str(caught.value)
