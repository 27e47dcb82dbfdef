"""MaPLe against the towers written out: places, couplings, frozen words, first values."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from daptune.errors import MethodError
from daptune.methods import METHODS, make_config
from daptune.methods.maple import MaPLe

from ..clip.test_model import CONFIG, made_up_clip, plain_image
from .conftest import NAMES, MadeUp
from .plain import check_gradients, images_of, plain_cross_entropy, plain_prompted_text

LABELS = torch.tensor([1, 3, 0])


def make(backbone: Any, **options: object) -> MaPLe:
    return MaPLe(backbone, NAMES, make_config("maple", options))  # type: ignore[arg-type]


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_features_and_gradients_equal_the_plain_towers(backbone: Any, depth: int) -> None:
    maple = make(backbone, prompt_depth=depth)
    with torch.no_grad():
        for parameter in maple.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5)))
    texts = [f"a photo of a {name.replace('_', ' ')}." for name in NAMES]  # "of a" stays, frozen
    w = torch.stack([plain_prompted_text(backbone, text, list(maple.text_prompt)) for text in texts])
    torch.testing.assert_close(maple.text_features(), w, atol=1e-5, rtol=1e-5)
    layers = zip(maple.text_prompt, maple.coupling_weight, maple.coupling_bias, strict=True)
    visual = torch.stack([torch.stack([weight @ v + bias for v in tokens]) for tokens, weight, bias in layers])
    assert visual.shape == (depth, 2, 32)
    images = images_of(3)
    z = torch.stack([plain_image(backbone.clip, image, visual, "end") for image in images])
    z = z / z.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(maple.image_features(images), z, atol=1e-5, rtol=1e-5)
    logits = 100 * z @ w.mT
    torch.testing.assert_close(maple.logits(images) / 100, logits / 100, atol=1e-5, rtol=1e-5)
    check_gradients(maple.losses(images, LABELS)["total"], plain_cross_entropy(logits, LABELS), [*maple.parameters()])


def test_first_values(backbone: Any) -> None:
    maple = make(backbone)
    assert maple.text_prompt.shape == (3, 2, 16) and maple.coupling_weight.shape == (3, 32, 16)
    ids = backbone.tokenizer.encode("a photo")
    assert torch.equal(maple.text_prompt[0], backbone.clip.text.token_embedding.weight[ids])
    for values in (maple.coupling_weight, maple.coupling_bias):
        assert torch.equal(values[1], values[2]) and not torch.equal(values[0], values[1])  # deep ones are clones
        assert 0.9 < float(values.detach().abs().max()) * 16**0.5 <= 1
    with torch.no_grad():
        maple.coupling_weight[1].zero_()
    assert maple.coupling_weight[2].any()  # and learn on their own


def test_untrained_text_of_depth_1_is_the_template(backbone: Any) -> None:
    zero_shot = METHODS["zero_shot"](backbone, NAMES)
    maple = make(backbone, prompt_depth=1)
    torch.testing.assert_close(maple.text_features(), zero_shot.text_features(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("depth", "count"), [(0, 3_555_072), (9, 3_555_072), (3, 1_185_024)])
def test_parameter_counts_of_vit_b_16(vit_b_16: Any, depth: int, count: int) -> None:
    assert make(vit_b_16, prompt_depth=depth).parameter_count == count


def test_towers_of_other_depths_share_the_shallower_one(tokenizer: Any) -> None:
    sizes = replace(CONFIG, context_length=77, vocab_size=tokenizer.vocab_size, text_layers=2)
    backbone = MadeUp(made_up_clip(sizes), tokenizer)
    assert len(make(backbone).text_prompt) == 2
    with pytest.raises(MethodError, match=r"^prompt_depth: expected 0 \(every layer\) to 2, .* found 3\."):
        make(backbone, prompt_depth=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt_depth": 4}, r"^prompt_depth: expected 0 \(every layer\) to 3, .*found 4\. .*prompt_depth=3$"),
        ({"prompt_depth": -1}, r"^prompt_depth: expected 0 \(9 layers\), 1 \(shallow\) or more layers, found -1\."),
        ({"text_tokens": 5}, r"^text_tokens: expected 1 to 4 \(context_init's\) or an empty context_init, found 5\."),
        ({"vision_tokens": 2}, r"^maple has no option 'vision_tokens'\."),
    ],
)
def test_bad_options_are_one_line(backbone: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(MethodError, match=message) as caught:
        make(backbone, **options)
    assert "\n" not in str(caught.value)
