"""CoCoOp against the official algorithm: for each image all prompts, whole, through the whole tower."""

from typing import Any

import pytest
import torch
from torch import Tensor

from daptune.errors import MethodError
from daptune.methods import make_config
from daptune.methods.cocoop import CoCoOp

from .conftest import NAMES
from .plain import check_gradients, images_of, plain_cross_entropy, plain_prompted_text

LABELS = torch.tensor([1, 3, 0])


def shifted(backbone: Any, tokens: int = 4) -> CoCoOp:
    """One whose meta-net's shifts are of the size of a word's embedding."""
    options = {} if tokens == 4 else {"context_init": "", "text_tokens": tokens}
    cocoop = CoCoOp(backbone, NAMES, make_config("cocoop", options))  # type: ignore[arg-type]
    with torch.no_grad():
        cocoop.meta_net.linear2.weight.mul_(3)
    return cocoop


def official_features(backbone: Any, cocoop: CoCoOp, images: Tensor) -> tuple[Tensor, Tensor]:
    """Unit image features (B, D) and class features (B, C, D), one image and one class at a time."""
    first, second = cocoop.meta_net.linear1, cocoop.meta_net.linear2
    z, rows = [], []
    for image in images:
        feature = backbone.clip.encode_image(image[None])[0]
        z.append(feature / feature.norm())
        hidden = torch.stack([(first.weight[k] * z[-1]).sum() + first.bias[k] for k in range(len(first.bias))])
        shift = second.weight @ hidden.clamp(min=0) + second.bias  # (W,)
        context = torch.stack([token + shift for token in cocoop.text_prompt])
        x = " ".join(["X"] * len(context))
        texts = [f"{x} {name.replace('_', ' ')}." for name in NAMES]
        rows.append(torch.stack([plain_prompted_text(backbone, text, [context]) for text in texts]))
    return torch.stack(z), torch.stack(rows)


@pytest.mark.parametrize("tokens", [1, 4])
def test_features_logits_and_gradients_equal_the_official_algorithm(backbone: Any, tokens: int) -> None:
    cocoop, images = shifted(backbone, tokens), images_of(3)
    z, w = official_features(backbone, cocoop, images)
    ours = cocoop.class_features(cocoop.image_features(images))
    assert ours.shape == (3, 4, 24)
    torch.testing.assert_close(ours, w, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(w[0], w[1], atol=1e-2)  # every image has its own
    plain = torch.stack([100 * w[b] @ z[b] for b in range(3)])
    torch.testing.assert_close(cocoop.logits(images) / 100, plain / 100, atol=1e-5, rtol=1e-5)
    losses, loss = cocoop.losses(images, LABELS), plain_cross_entropy(plain, LABELS)
    assert set(losses) == {"cross_entropy", "total"}
    torch.testing.assert_close(losses["total"], loss, atol=1e-3, rtol=1e-5)
    check_gradients(losses["total"], loss, list(cocoop.parameters()))


def test_a_batch_in_chunks_is_the_mean_of_its_images(backbone: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cocoop, images, labels = shifted(backbone), images_of(32), torch.arange(32) % 4
    alone = torch.stack([cocoop.losses(images[b : b + 1], labels[b : b + 1])["total"] for b in range(32)]).mean()
    monkeypatch.setattr("daptune.clip.towers.TEXT_CHUNK_TOKENS", 100)  # less than one line of all prefixes
    together = cocoop.losses(images, labels)["total"]
    torch.testing.assert_close(together, alone, atol=1e-3, rtol=1e-5)
    check_gradients(together, alone, list(cocoop.parameters()))


def test_first_values(backbone: Any) -> None:
    cocoop = CoCoOp(backbone, NAMES)
    ids = backbone.tokenizer.encode("a photo of a")
    assert torch.equal(cocoop.text_prompt, backbone.clip.text.token_embedding.weight[ids])
    for layer, inputs in ((cocoop.meta_net.linear1, 24), (cocoop.meta_net.linear2, 8)):
        for values in (layer.weight, layer.bias):
            assert values.dtype == torch.float32 and 0.3 < float(values.detach().abs().max()) * inputs**0.5 <= 1
    state = torch.get_rng_state()
    again = CoCoOp(backbone, NAMES).state_dict()
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(again[key], value) for key, value in cocoop.state_dict().items())


def test_parameter_count_and_meta_net_of_vit_b_16(vit_b_16: Any) -> None:
    cocoop = CoCoOp(vit_b_16, NAMES)
    shapes = {key: tuple(value.shape) for key, value in cocoop.state_dict().items()}
    assert cocoop.parameter_count == 2_048 + 33_312 == 35_360
    assert shapes == {
        "text_prompt": (4, 512),
        "meta_net.linear1.weight": (32, 512), "meta_net.linear1.bias": (32,),
        "meta_net.linear2.weight": (512, 32), "meta_net.linear2.bias": (512,),
    }  # fmt: skip


def test_there_are_no_class_features_without_an_image(backbone: Any) -> None:
    with pytest.raises(MethodError, match=r"^cocoop has class features only with an image: .*logits\(images\)\.$"):
        CoCoOp(backbone, NAMES).text_features()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text_tokens": 0}, r"^text_tokens: expected 1 token or more, found 0\."),
        ({"text_tokens": 8}, r"^text_tokens: expected 4 \(context_init's\) or an empty context_init, found 8\."),
        ({"class_position": "front"}, r"^cocoop has no option 'class_position'\."),
    ],
)
def test_bad_options_are_one_line(backbone: Any, options: dict[str, object], message: str) -> None:
    with pytest.raises(MethodError, match=message) as caught:
        CoCoOp(backbone, NAMES, make_config("cocoop", options))  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_tokens_beyond_the_context_are_one_line(backbone: Any) -> None:
    with pytest.raises(ValueError, match="learn fewer context tokens") as caught:
        CoCoOp(backbone, NAMES, make_config("cocoop", {"context_init": "", "text_tokens": 75}))  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
