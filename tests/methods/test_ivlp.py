"""IVLP, and the deep text prompts that it shares with MaPLe, against the tower written out."""

from typing import Any

import pytest
import torch

from daptune.errors import MethodError
from daptune.methods import METHODS, make_config
from daptune.methods.ivlp import IVLP

from ..clip.test_model import plain_image
from .conftest import NAMES
from .plain import check_gradients, images_of, plain_cross_entropy, plain_prompted_text

LABELS = torch.tensor([1, 3, 0])


def make(backbone: Any, **options: object) -> IVLP:
    return IVLP(backbone, NAMES, make_config("ivlp", options))  # type: ignore[arg-type]


@pytest.mark.parametrize(("words", "tokens"), [("a photo of a", 2), ("a photo of a", 4), ("", 3)])
@pytest.mark.parametrize("depth", [1, 2, 0])
def test_features_and_gradients_equal_the_plain_towers(backbone: Any, depth: int, words: str, tokens: int) -> None:
    ivlp = make(backbone, text_depth=depth, vision_depth=depth, context_init=words, text_tokens=tokens)
    with torch.no_grad():
        for parameter in ivlp.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5)))
    assert ivlp.text_prompt.shape == (depth or 3, tokens, 16)
    phrase = words or " ".join(["X"] * tokens)  # of "a photo of a" with 2 tokens, "of a" stays in its place
    texts = [f"{phrase} {name.replace('_', ' ')}." for name in NAMES]
    w = torch.stack([plain_prompted_text(backbone, text, list(ivlp.text_prompt)) for text in texts])
    torch.testing.assert_close(ivlp.text_features(), w, atol=1e-5, rtol=1e-5)
    images = images_of(3)
    visual = ivlp.vision_prompt if ivlp.vision_prompt.dim() == 3 else ivlp.vision_prompt.unsqueeze(0)
    z = torch.stack([plain_image(backbone.clip, image, visual, "end") for image in images])
    z = z / z.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(ivlp.image_features(images), z, atol=1e-5, rtol=1e-5)
    loss = plain_cross_entropy(100 * z @ w.mT, LABELS)
    check_gradients(ivlp.losses(images, LABELS)["total"], loss, [ivlp.text_prompt, ivlp.vision_prompt])


def test_first_values(backbone: Any) -> None:
    ivlp = make(backbone)
    ids = backbone.tokenizer.encode("a photo")
    assert torch.equal(ivlp.text_prompt[0], backbone.clip.text.token_embedding.weight[ids])
    wide = make(backbone, context_init="", text_tokens=60, vision_tokens=200)
    for values in (wide.text_prompt.detach(), wide.vision_prompt.detach()):
        assert float(values.std()) == pytest.approx(0.02, rel=0.05) and abs(float(values.mean())) < 0.002


def test_shallow_and_untrained_it_is_the_template(backbone: Any) -> None:
    ivlp, zero_shot = make(backbone, text_depth=1), METHODS["zero_shot"](backbone, NAMES)
    torch.testing.assert_close(ivlp.text_features(), zero_shot.text_features(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({}, 30_720),
        ({"text_depth": 12, "vision_depth": 12}, 30_720),
        ({"text_tokens": 4, "vision_tokens": 4, "text_depth": 9, "vision_depth": 9}, 46_080),  # PromptSRC's prompts
    ],
)
def test_parameter_counts_of_vit_b_16(vit_b_16: Any, options: dict[str, Any], count: int) -> None:
    assert make(vit_b_16, **options).parameter_count == count


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text_tokens": 5}, r"^text_tokens: expected 1 to 4 \(context_init's\) or an empty context_init, found 5\."),
        ({"text_depth": 4}, r"^text_depth: expected 0 \(every layer\) to 3, .*text tower, found 4\. .*text_depth=3$"),
        ({"vision_depth": 4}, r"^vision_depth: expected 0 .*found 4\. "),
        ({"text_depth": -1}, r"^text_depth: expected 0 \(every layer\), 1 \(shallow\) or more layers, found -1\."),
        ({"class_position": "front"}, r"^ivlp has no option 'class_position'\."),
    ],
)
def test_bad_options_are_one_line(backbone: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(MethodError, match=message) as caught:
        make(backbone, **options)
    assert "\n" not in str(caught.value)


def test_tokens_beyond_the_context_are_one_line(backbone: Any) -> None:
    with pytest.raises(ValueError, match="learn fewer context tokens"):
        make(backbone, context_init="", text_tokens=75)
