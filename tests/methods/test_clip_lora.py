"""CLIP-LoRA against towers whose matrices have the products added, one image, one text, one head at a time."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from daptune.clip import prefix
from daptune.clip.lora import LoRABlock
from daptune.clip.suffixes import Suffixes
from daptune.errors import BackboneError, MethodError
from daptune.methods import METHODS, make_config
from daptune.methods.clip_lora import CLIPLoRA, CLIPLoRAConfig

from ..clip.test_model import CONFIG, made_up_clip, plain_block, plain_image, plain_text
from .conftest import NAMES, MadeUp
from .plain import check_gradients, images_of, plain_cross_entropy

LABELS = torch.tensor([1, 3, 0])


def make(backbone: Any, names: list[str] = NAMES, **options: object) -> CLIPLoRA:
    return CLIPLoRA(backbone, names, make_config("clip_lora", options))  # type: ignore[arg-type]


def moved(method: CLIPLoRA, size: float = 0.3) -> CLIPLoRA:
    """Away from B = 0."""
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5)))
    return method


def merged_blocks(blocks: list[Any], lora: Any, layers: list[int], method: CLIPLoRA) -> list[Any]:
    """The blocks with W + alpha / sqrt(r) B A in place of W; of the others, the block itself."""
    options = method.config
    found = list(blocks)
    for j, layer in enumerate(layers):
        block = blocks[layer]
        width = block.attn.out_proj.in_features
        rows = [block.attn.in_proj_weight[i * width : (i + 1) * width] for i in range(3)] + [block.attn.out_proj.weight]
        for n, matrix in enumerate(options.matrices):
            product = torch.zeros(width, width)
            for rank in range(options.rank):
                product = product + torch.outer(lora.b[j, n, :, rank], lora.a[j, n, rank])
            at = "qkvo".index(matrix)
            rows[at] = rows[at] + options.alpha / options.rank**0.5 * product
        attention = SimpleNamespace(
            heads=block.attn.heads, in_proj_weight=torch.cat(rows[:3]), in_proj_bias=block.attn.in_proj_bias,
            out_proj=SimpleNamespace(weight=rows[3], bias=block.attn.out_proj.bias),
        )  # fmt: skip
        found[layer] = SimpleNamespace(attn=attention, ln_1=block.ln_1, ln_2=block.ln_2, mlp=block.mlp)
    return found


def merged(method: CLIPLoRA, layers: list[int]) -> Any:
    """Stands for the CLIP with the products in its matrices."""
    clip = method.clip
    text, vision = clip.text.transformer.blocks, clip.visual.transformer.blocks
    if method.text_lora is not None:
        text = merged_blocks(text, method.text_lora, layers, method)
    if method.vision_lora is not None:
        vision = merged_blocks(vision, method.vision_lora, layers, method)
    keep = ("conv1", "class_embedding", "positional_embedding", "ln_pre", "ln_post", "proj")
    visual = SimpleNamespace(**{name: getattr(clip.visual, name) for name in keep})
    visual.transformer = SimpleNamespace(blocks=vision)
    kept = {name: getattr(clip.text, name) for name in ("ln_final", "positional_embedding", "text_projection")}
    text = SimpleNamespace(transformer=SimpleNamespace(blocks=text), **kept)
    return SimpleNamespace(config=clip.config, visual=visual, text=text)


def unit(rows: list[Tensor]) -> Tensor:
    stacked = torch.stack(rows)
    return stacked / stacked.norm(dim=-1, keepdim=True)


def plain_features(method: CLIPLoRA, images: Tensor, layers: list[int]) -> tuple[Tensor, Tensor]:
    """z (B, D) and w (C, D) of the merged towers, each text of 77 tokens."""
    clip = merged(method, layers)
    texts = [method.config.template.replace("{}", name.replace("_", " ")) for name in method.class_names]
    ids = method.backbone.tokenizer(texts)
    w = unit([plain_text(clip, method.clip.text.token_embedding(row), int(row.argmax())) for row in ids])
    return unit([plain_image(clip, image, None, "end") for image in images]), w


@pytest.mark.parametrize(
    ("options", "layers"),
    [
        ({}, [0, 1, 2]),
        ({"rank": 3, "alpha": 0.5, "matrices": ("v", "o")}, [0, 1, 2]),
        ({"matrices": ("q",), "layers": "up"}, [2]),
        ({"matrices": ("o", "k"), "layers": "bottom"}, [0]),
        ({"encoder": "text", "layers": "mid"}, [1]),
        ({"encoder": "vision", "matrices": ("q", "k", "v", "o")}, [0, 1, 2]),
        ({"template": "{} texture.", "layers": "half-up"}, [2]),
        ({"template": "a photo of a {}, a type of pet."}, [0, 1, 2]),
    ],
)
def test_features_and_gradients_equal_the_merged_towers(
    backbone: Any, options: dict[str, Any], layers: list[int]
) -> None:
    method, images = moved(make(backbone, **options)).eval(), images_of(3)
    z, w = plain_features(method, images, layers)
    torch.testing.assert_close(method.image_features(images), z, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(method.text_features(), w, atol=1e-5, rtol=1e-5)
    logits = 100 * z @ w.mT
    torch.testing.assert_close(method.logits(images) / 100, logits / 100, atol=1e-5, rtol=1e-5)
    losses = method.losses(images, LABELS)
    check_gradients(losses["total"], plain_cross_entropy(logits, LABELS), [*method.parameters()])


def test_one_tower_leaves_the_other_as_it_was(backbone: Any) -> None:
    plain = METHODS["zero_shot"](backbone, NAMES)
    text, vision = (moved(make(backbone, encoder=side)).eval() for side in ("text", "vision"))
    images = images_of(2)
    assert torch.equal(text.image_features(images), plain.image_features(images))
    assert torch.equal(vision.text_features(), plain.text_features())
    assert (text.text_features() - plain.text_features()).abs().max() > 0.01
    assert (vision.image_features(images) - plain.image_features(images)).abs().max() > 0.01
    assert {*text.state_dict()} == {"text_lora.a", "text_lora.b"} != {*vision.state_dict()}


def test_untrained_it_is_zero_shot(backbone: Any) -> None:
    plain, method = METHODS["zero_shot"](backbone, NAMES), make(backbone)
    torch.testing.assert_close(method.logits(images_of(3)), plain.logits(images_of(3)), atol=1e-3, rtol=1e-5)


def test_first_values(backbone: Any) -> None:
    method = make(backbone, rank=8)
    for lora, width in ((method.text_lora, 16), (method.vision_lora, 32)):
        assert lora is not None and lora.a.shape == (3, 3, 8, width) and lora.b.shape == (3, 3, width, 8)
        assert not lora.b.any() and 0.98 < float(lora.a.detach().abs().max()) * width**0.5 <= 1
        drawn = torch.empty(4000, width)
        torch.nn.init.kaiming_uniform_(drawn, a=5**0.5)  # the official code's
        assert float(lora.a.detach().std()) == pytest.approx(float(drawn.std()), rel=0.05)


@pytest.mark.parametrize(
    ("options", "count"),
    [({}, 184_320), ({"encoder": "text"}, 73_728), ({"matrices": ("v",), "rank": 4, "layers": "half-up"}, 61_440)],
)
def test_parameter_counts_of_vit_b_16(vit_b_16: Any, options: dict[str, Any], count: int) -> None:
    assert make(vit_b_16, **options).parameter_count == count


@pytest.mark.parametrize(
    ("layers", "twelve", "five"),
    [
        ("all", [*range(12)], [0, 1, 2, 3, 4]),
        ("bottom", [0, 1, 2, 3], [0, 1]),
        ("mid", [4, 5, 6, 7], [2]),
        ("up", [8, 9, 10, 11], [3, 4]),
        ("half-bottom", [0, 1, 2, 3, 4, 5], [0, 1]),
        ("half-up", [6, 7, 8, 9, 10, 11], [2, 3, 4]),
        ("top3", [9, 10, 11], [2, 3, 4]),
    ],
)
def test_layers_are_the_official_ones_and_parts_of_any_tower(layers: str, twelve: list[int], five: list[int]) -> None:
    config = CLIPLoRAConfig(layers=layers)
    assert [*config.chosen(12)] == twelve and [*config.chosen(5)] == five
    assert len(config.chosen(2)) == (0 if layers == "mid" else 2 if layers in ("all", "top3") else 1)


# --- dropout ----------------------------------------------------------------------------------------------------------


def test_dropout_draws_anew_for_each_matrix(backbone: Any) -> None:
    frozen = backbone.clip.text.transformer.blocks[0]
    a, b = torch.randn(4, 2, 16), torch.randn(4, 16, 2)
    block = LoRABlock(frozen, ("q", "k", "v", "o"), a, b, scale=0.7, dropout=0.25)
    x = torch.randn(2, 5, 16)
    torch.manual_seed(3)
    parts = block.project(x)
    output = block.output(x)
    torch.manual_seed(3)
    normed, weight, bias = frozen.ln_1(x), frozen.attn.in_proj_weight, frozen.attn.in_proj_bias
    for i, part in enumerate(parts):
        dropped = F.dropout(normed, 0.25)
        rows = slice(16 * i, 16 * i + 16)
        expected = normed @ weight[rows].T + bias[rows] + 0.7 * dropped @ a[i].T @ b[i].T
        torch.testing.assert_close(part.transpose(1, 2).flatten(2), expected, atol=1e-5, rtol=1e-5)
    expected = frozen.attn.out_proj(x) + 0.7 * F.dropout(x, 0.25) @ a[3].T @ b[3].T
    torch.testing.assert_close(output, expected, atol=1e-5, rtol=1e-5)


def test_there_is_dropout_in_training_alone_and_the_seed_decides_it(backbone: Any) -> None:
    method, images = moved(make(backbone)), images_of(3)
    assert method.training
    torch.manual_seed(1)
    first, second = (method.losses(images, LABELS)["total"].item() for _ in range(2))
    torch.manual_seed(1)
    assert first == method.losses(images, LABELS)["total"].item() != second
    method.eval()
    assert torch.equal(method.logits(images), method.logits(images))
    undropped = moved(make(backbone, dropout=0))
    assert torch.equal(undropped.train().logits(images), method.logits(images))


def test_many_classes_are_recomputed_under_the_same_dropout(backbone: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """In chunks, the backward sees the masks of the forward, and the matrices of prefix and suffixes alike."""
    names = [f"thing {i}" for i in range(40)]
    method = moved(make(backbone, names))
    monkeypatch.setattr("daptune.clip.towers.TEXT_CHUNK_TOKENS", 60)
    weights = torch.randn(40, 24, generator=torch.Generator().manual_seed(1))
    calls = []

    def gradients() -> list[Tensor]:
        torch.manual_seed(7)
        return [*torch.autograd.grad((method.text_features() * weights).sum(), [*method.text_lora.parameters()])]  # type: ignore[union-attr]

    found = gradients()
    monkeypatch.setattr(prefix, "checkpoint", lambda run, *a, use_reentrant: (calls.append(1), run(*a))[1])
    for ours, kept in zip(found, gradients(), strict=True):
        torch.testing.assert_close(ours, kept, atol=1e-5, rtol=1e-5)
    assert len(calls) > 2


def test_bf16_matrices_stay_float32_and_their_products_follow_the_tower(backbone: Any) -> None:
    images = images_of(3)
    exact = moved(make(backbone), 0.1).eval()
    expected = exact.logits(images).detach()
    backbone.clip.set_precision("bf16")
    method = moved(make(backbone), 0.1).eval()
    seen: set[torch.dtype] = set()
    for block in [b for lora in (method.vision_lora,) if lora for b in lora.blocks(backbone.clip.visual.transformer)]:
        seen |= {part.dtype for part in block.project(torch.randn(1, 4, 32))}
    assert seen == {torch.bfloat16}
    assert all(p.dtype == torch.float32 for p in method.parameters())
    torch.testing.assert_close(method.logits(images), expected, atol=2, rtol=0)
    untrained = METHODS["zero_shot"](backbone, NAMES).logits(images)
    assert (method.logits(images) - expected).abs().max() < 0.5 * (untrained - expected).abs().max()
    method.train().losses(images, LABELS)["total"].backward()
    for parameter in method.parameters():
        assert parameter.grad is not None and parameter.grad.dtype == torch.float32 and parameter.grad.isfinite().all()


# --- the shared start of the templates --------------------------------------------------------------------------------


def test_texts_are_parted_where_they_begin_to_differ(tokenizer: Any) -> None:
    ids = tokenizer.encode("a photo of a")
    common, suffixes = Suffixes.of_texts(tokenizer, ["a photo of a cat.", "a photo of a sea lake."])
    assert common.tolist() == ids and sum(map(len, suffixes.ids)) == 3 + 4  # with "." and EOT
    common, suffixes = Suffixes.of_texts(tokenizer, ["a photo of a cat."])
    assert common.tolist() == tokenizer.encode("a photo of a cat.") and suffixes.ids == ((tokenizer.eot,),)
    common, _ = Suffixes.of_texts(tokenizer, ["cat texture.", "sea texture."])
    assert common.tolist() == []
    common, suffixes = Suffixes.of_texts(tokenizer, ["a photo", "a photo of"])  # one text is the start of the other
    assert common.tolist() == tokenizer.encode("a photo")
    assert suffixes.ids[0] == (tokenizer.eot,) and suffixes.ids[1][-1] == tokenizer.eot


def test_new_class_names_run_through_the_same_matrices(backbone: Any) -> None:
    method = moved(make(backbone)).eval()
    other = method.with_classes(["dog", NAMES[2], "a very long name of a thing"])
    _, w = plain_features(other, images_of(1), [0, 1, 2])
    torch.testing.assert_close(other.text_features(), w, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(other.text_features()[1], method.text_features()[2], atol=1e-5, rtol=1e-5)


def test_the_frozen_block_is_used_and_not_changed(backbone: Any) -> None:
    method = moved(make(backbone))
    block = method.vision_lora.blocks(backbone.clip.visual.transformer)[0]  # type: ignore[union-attr]
    assert isinstance(block, LoRABlock) and block.mlp is backbone.clip.visual.transformer.blocks[0].mlp
    assert not isinstance(backbone.clip.visual.transformer.blocks[0], LoRABlock)
    x = torch.randn(5, 32)
    frozen = backbone.clip.visual.transformer.blocks[0]
    torch.testing.assert_close(frozen(x[None])[0], plain_block(frozen, x, False, "quick_gelu"), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, r"^rank: expected 1 or more, found 0\. For example: rank=2$"),
        ({"alpha": 0}, r"^alpha: expected a number above 0, found 0\.0\."),
        ({"dropout": 1}, r"^dropout: expected 0 or more, and less than 1, found 1\.0\."),
        ({"dropout": -0.1}, r"^dropout: expected 0 or more, and less than 1, found -0\.1\."),
        ({"matrices": ()}, r"^matrices: expected some of q, k, v, o, each once, found \(\)\."),
        ({"matrices": ("q", "x")}, r"^matrices: expected some of q, k, v, o, each once, found \('q', 'x'\)\."),
        ({"matrices": ("q", "q")}, r"^matrices: expected some of q, k, v, o, each once, found \('q', 'q'\)\."),
        ({"encoder": "image"}, r"^encoder: expected one of both, text, vision, found 'image'\."),
        ({"layers": "top"}, r"^layers: expected one of all, bottom, .*half-up, top3, found 'top'\."),
        ({"template": "a photo"}, r"^template: expected one \{\} in it for the class name, found 'a photo'\."),
        ({"r": 2}, r"^clip_lora has no option 'r'\."),
    ],
)
def test_bad_options_are_one_line(backbone: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(MethodError, match=message) as caught:
        make(backbone, **options)
    assert "\n" not in str(caught.value)


def test_a_tower_without_such_layers_and_a_long_text_are_one_line(backbone: Any, tokenizer: Any) -> None:
    sizes = replace(CONFIG, context_length=77, vocab_size=tokenizer.vocab_size, text_layers=2)
    with pytest.raises(MethodError, match=r"^layers: expected layers that a text tower of 2 has, found 'mid'\."):
        make(MadeUp(made_up_clip(sizes), tokenizer), layers="mid")
    with pytest.raises(BackboneError, match=r"has 8\d tokens with its start and end, the limit is 77"):
        make(backbone, ["word " * 77])
