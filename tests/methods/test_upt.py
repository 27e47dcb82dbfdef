"""UPT: the network token by token, with and without the reference's fault, and the towers written out."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from daptune.errors import MethodError
from daptune.methods import METHODS, make_config
from daptune.methods.prompt_network import PromptNetwork
from daptune.methods.upt import UPT

from ..clip.test_model import CONFIG, made_up_clip, plain_image, plain_norm
from .conftest import NAMES, MadeUp
from .plain import check_gradients, images_of, plain_cross_entropy, plain_prompted_text
from .test_text_prompts import official_features

LABELS = torch.tensor([1, 3, 0])


def make(backbone: Any, **options: object) -> UPT:
    return UPT(backbone, NAMES, make_config("upt", options))  # type: ignore[arg-type]


def stir(method: torch.nn.Module, size: float = 0.3) -> None:
    """Move every learned number, so that nothing is near zero or the same twice."""
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5)))


def linear(layer: torch.nn.Linear, x: Tensor) -> Tensor:
    return torch.stack([sum((w * v for w, v in zip(row, x, strict=True)), torch.zeros(())) for row in layer.weight]) + (
        layer.bias
    )


def plain_network(network: PromptNetwork, text: Tensor, vision: Tensor, official: bool) -> tuple[Tensor, Tensor]:
    """One token at a time: text (M, W_text), vision (n, W_vision) -> the same shapes. As a sequence of one each where
    `official`: softmax of one score is 1, and the token finds its own value."""
    x = [linear(network.text_in, v) for v in text] + [linear(network.vision_in, u) for u in vision]
    normed = [plain_norm(network.norm_1, token.unsqueeze(0))[0] for token in x]
    queries, keys, values = zip(*(linear(network.query_key_value, token).chunk(3) for token in normed), strict=True)
    for i, query in enumerate(queries):
        found = values[i]
        if not official:
            scores = torch.stack([(query * key).sum() / math.sqrt(len(query)) for key in keys]).exp()
            found = sum((s / scores.sum() * v for s, v in zip(scores, values, strict=True)), torch.zeros(()))
        x[i] = x[i] + linear(network.attended, found)
        h = linear(network.hidden, plain_norm(network.norm_2, x[i].unsqueeze(0))[0])
        x[i] = x[i] + linear(network.shrunk, h / (1 + (-1.702 * h).exp()))
    words = [linear(network.text_out, token) for token in x[: len(text)]]
    return torch.stack(words), torch.stack([linear(network.vision_out, token) for token in x[len(text) :]])


@pytest.mark.parametrize("official", [False, True])
def test_the_network_equals_tokens_one_by_one(official: bool) -> None:
    network = PromptNetwork(5, 7, 6, torch.Generator().manual_seed(0), official_attention=official)
    stir(network, 0.5)
    text, vision = torch.randn(2, 5, requires_grad=True), torch.randn(3, 4, 7, requires_grad=True)
    found = network(text, vision)
    words, visual = plain_network(network, text, vision.flatten(0, 1), official)
    expected = words, visual.view(3, 4, 7)
    for f, e in zip(found, expected, strict=True):
        torch.testing.assert_close(f, e, atol=1e-5, rtol=1e-5)
    ours, plain = (sum((part.pow(3).sum() for part in parts), torch.zeros(())) for parts in (found, expected))
    check_gradients(ours, plain, [text, vision, *network.parameters()])


@pytest.mark.parametrize("official", [False, True])
def test_the_fault_is_that_no_prompt_sees_another(official: bool) -> None:
    network = PromptNetwork(5, 7, 6, torch.Generator().manual_seed(0), official_attention=official)
    stir(network, 0.5)
    text, vision = torch.randn(2, 5, requires_grad=True), torch.randn(4, 7, requires_grad=True)
    words, visual = network(text, vision)
    of_vision, of_words = torch.autograd.grad(words[0].sum(), [vision, text], retain_graph=True)
    of_text, of_visual = torch.autograd.grad(visual[0].sum(), [text, vision])
    for others in (of_vision, of_words[1:], of_text, of_visual[1:]):
        assert bool(others.any()) is not official
    assert of_words[0].any() and of_visual[0].any()


@pytest.mark.parametrize("official", [False, True])
@pytest.mark.parametrize("depth", [1, 2, 0])
def test_features_and_gradients_equal_the_plain_towers(backbone: Any, depth: int, official: bool) -> None:
    upt = make(backbone, vision_depth=depth, network_width=8, official_attention=official)
    stir(upt)
    raw = upt.raw_vision_prompt
    assert upt.raw_text_prompt.shape == (4, 16) and raw.shape == ((4, 32) if depth == 1 else (depth or 3, 4, 32))
    context, visual = plain_network(upt.network, upt.raw_text_prompt, raw.flatten(0, -2), official)
    texts = [f"X X X X {name.replace('_', ' ')}." for name in NAMES]
    w = torch.stack([plain_prompted_text(backbone, text, [context]) for text in texts])
    torch.testing.assert_close(upt.text_features(), w, atol=1e-5, rtol=1e-5)
    images, layers = images_of(3), visual.view(-1, 4, 32)
    z = torch.stack([plain_image(backbone.clip, image, layers, "beside") for image in images])
    z = z / z.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(upt.image_features(images), z, atol=1e-5, rtol=1e-5)
    loss = plain_cross_entropy(100 * z @ w.mT, LABELS)
    check_gradients(upt.losses(images, LABELS)["total"], loss, [upt.raw_text_prompt, raw, *upt.network.parameters()])


@pytest.mark.parametrize("options", [{"class_position": "middle"}, {"class_specific": True, "class_position": "front"}])
def test_the_context_stands_where_it_is_told(backbone: Any, options: dict[str, Any]) -> None:
    upt = make(backbone, network_width=8, **options)
    stir(upt)
    context, visual = plain_network(
        upt.network, upt.raw_text_prompt.flatten(0, -2), upt.raw_vision_prompt.flatten(0, -2), False
    )
    context = context.view(upt.raw_text_prompt.shape)  # class-specific: tokens of all classes are in one sequence
    assert context.dim() == 2 + ("class_specific" in options)
    expected = official_features(backbone, context, options["class_position"])
    torch.testing.assert_close(upt.text_features(), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(upt.unified_prompts()[1].flatten(0, -2), visual, atol=1e-5, rtol=1e-5)


def test_first_values(backbone: Any) -> None:
    upt, same, other = (UPT(backbone, NAMES, seed=seed) for seed in (1, 1, 2))
    coop_vpt = METHODS["coop_vpt"](backbone, NAMES, make_config("coop_vpt", {"text_tokens": 4, "vision_tokens": 4}))
    assert torch.equal(upt.raw_text_prompt, coop_vpt.text_prompt)  # drawn as CoOp's
    bound = math.sqrt(6 / (3 * backbone.clip.config.patch_size**2 + 32))
    assert 0.9 < float(upt.raw_vision_prompt.detach().abs().max()) / bound <= 1
    state = upt.network.state_dict()
    for name in ("text_in", "vision_in", "attended", "hidden", "shrunk", "text_out", "vision_out"):
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        assert 0.95 < float(weight.abs().max()) * weight.shape[1] ** 0.5 <= 1
        assert not bias.any() if name == "attended" else 0.8 < float(bias.abs().max()) * weight.shape[1] ** 0.5 <= 1
    joined = state["query_key_value.weight"]
    assert joined.shape == (384, 128) and 0.95 < float(joined.abs().max()) / math.sqrt(6 / (128 * 4)) <= 1
    assert not state["query_key_value.bias"].any()
    for norm in ("norm_1", "norm_2"):
        assert (state[f"{norm}.weight"] == 1).all() and not state[f"{norm}.bias"].any()
    assert all(torch.equal(value, same.state_dict()[key]) for key, value in upt.state_dict().items())
    assert not torch.equal(upt.network.text_in.weight, other.network.text_in.weight)


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({}, 2_048 + 36_864 + 527_488),
        ({"vision_depth": 12, "official_attention": True, "class_position": "middle"}, 566_400),
        ({"vision_depth": 1}, 2_048 + 3_072 + 527_488),
        ({"network_width": 64}, 38_912 + 2 * (512 + 768) * 64 + 2 * 64 + 512 + 768 + 12 * 64**2 + 13 * 64),
    ],
)
def test_parameter_counts_of_vit_b_16(vit_b_16: Any, options: dict[str, Any], count: int) -> None:
    assert make(vit_b_16, **options).parameter_count == count


def test_widths_are_the_backbone_s_and_one_like_the_network_is_no_special_case(tokenizer: Any) -> None:
    sizes = replace(CONFIG, context_length=77, vocab_size=tokenizer.vocab_size)
    upt = make(MadeUp(made_up_clip(sizes), tokenizer), network_width=16)  # the reference has no maps at such a width
    assert upt.network.text_in.weight.shape == (16, 16) and upt.network.vision_out.weight.shape == (32, 16)
    assert upt.text_features().shape == (4, 24)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"network_width": 0}, r"^network_width: expected 1 or more, found 0\. For example: network_width=128$"),
        ({"vision_depth": 4}, r"^vision_depth: expected 0 .*found 4\. "),
        ({"class_position": "behind"}, r"^class_position: expected one of end, middle, front, found 'behind'\."),
        ({"official_attention": "maybe"}, r"^official_attention: expected true or false, found 'maybe'\."),
        ({"tasks": (2, 2)}, r"^upt has no option 'tasks'\."),
    ],
)
def test_bad_options_are_one_line(backbone: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(MethodError, match=message) as caught:
        make(backbone, **options)
    assert "\n" not in str(caught.value)
