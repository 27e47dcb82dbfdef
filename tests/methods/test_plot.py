"""PLOT against loops over images, classes, contexts and patches: logits, gradients, features, what is encoded once."""

from typing import Any

import pytest
import torch
from torch import Tensor

from daptune import presets
from daptune.errors import MethodError
from daptune.methods import METHODS, make_config
from daptune.methods.plot import PLOT

from ..clip.test_model import plain_tokens
from .conftest import NAMES
from .plain import check_gradients, images_of, plain_cross_entropy, plain_prompted_text
from .test_transport import plain_plans

LABELS = torch.tensor([1, 3, 0])


def make(backbone: Any, **options: object) -> PLOT:
    return PLOT(backbone, NAMES, make_config("plot", options))  # type: ignore[arg-type]


def spread_out(backbone: Any, **options: object) -> PLOT:
    plot = make(backbone, **options)
    with torch.no_grad():
        plot.text_prompt.mul_(20)
    return plot


def plain_logits(parts: Tensor, whole: Tensor, w: Tensor, weight: float, *, epsilon: float, together: bool) -> Tensor:
    """Logits (B, C) of raw features, one pair at a time: parts (B, G, D), whole (B, D), w (N, C, D)."""
    pairs = [(b, c) for b in range(len(parts)) for c in range(w.shape[1])]
    cosines = [
        torch.stack([torch.stack([cosine(part, word) for part in parts[b]]) for word in w[:, c]]) for b, c in pairs
    ]  # each (N, G)
    plans = plain_plans([s.detach() for s in cosines], epsilon, together)
    rows = []
    for (b, c), s, plan in zip(pairs, cosines, plans, strict=True):
        score = sum(t * x for t, x in zip(plan.flatten(), s.flatten(), strict=True))
        rows.append(100 * (score + weight * cosine(whole[b], sum(w[:, c]) / len(w))))
    return torch.stack(rows).view(len(parts), -1)


def cosine(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum() / (a.norm() * b.norm())


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"global_weight": 0.0},
        {"prompts": 2, "global_weight": 0.5, "regularization": 0.2},
        {"official_stop": True, "prompts": 3},
    ],
)
def test_logits_and_gradients_are_the_written_out_sums(backbone: Any, options: dict[str, Any]) -> None:
    plot, images = spread_out(backbone, text_tokens=3, **options), images_of(3)
    texts = [f"X X X {name.replace('_', ' ')}." for name in NAMES]
    w = [plain_prompted_text(backbone, text, [v], unit=False) for v in plot.text_prompt for text in texts]
    w = torch.stack(w).unflatten(0, (-1, len(NAMES)))
    torch.testing.assert_close(plot.logit_weights(), w, atol=1e-5, rtol=1e-5)
    tokens = torch.stack([plain_tokens(backbone.clip, image, None, "end") for image in images])
    epsilon, together = plot.config.regularization, plot.config.official_stop
    weight = plot.config.global_weight
    logits = plain_logits(tokens[:, 1:], tokens[:, 0], w, weight, epsilon=epsilon, together=together)
    torch.testing.assert_close(plot.logits(images) / 100, logits / 100, atol=1e-5, rtol=1e-5)
    loss, losses = plain_cross_entropy(logits, LABELS), plot.losses(images, LABELS)
    torch.testing.assert_close(losses["total"], loss, atol=1e-4, rtol=1e-5)
    assert losses["cross_entropy"] is losses["total"]
    check_gradients(losses["total"], loss, [plot.text_prompt])


def test_features_are_the_class_token_and_the_mean_of_the_contexts(backbone: Any) -> None:
    plot, images = spread_out(backbone, text_tokens=3), images_of(3)
    torch.testing.assert_close(plot.image_features(images), METHODS["coop"](backbone, NAMES).image_features(images))
    w = plot.logit_weights()
    torch.testing.assert_close(plot.text_features() * w.mean(0).norm(dim=-1, keepdim=True), w.mean(0))


def test_one_context_without_regard_to_patches_is_coop(backbone: Any) -> None:
    """With one context the plan is uniform, and the score the mean cosine of the patches."""
    plot, images = spread_out(backbone, prompts=1), images_of(3)
    coop = METHODS["coop"](backbone, NAMES)
    coop.load_state_dict({"text_prompt": plot.text_prompt[0]})
    patches = torch.nn.functional.normalize(plot.encode(images)[:, 1:], dim=-1).mean(1)
    mean = 100 * patches @ plot.text_features().mT
    torch.testing.assert_close(plot.logits(images) - mean, coop.logits(images), atol=1e-3, rtol=1e-4)


def test_what_was_encoded_stays(backbone: Any) -> None:
    plot, images = make(backbone, prompts=2), images_of(3)
    encoded = plot.encode(images)
    assert encoded.shape == (3, 17, 24) and encoded[0].numel() == plot.encoded_size
    assert torch.equal(plot.logits(encoded), plot.logits(images)) and plot.encode(encoded) is encoded


def test_first_values_and_counts_of_vit_b_16(backbone: Any, vit_b_16: Any) -> None:
    assert make(vit_b_16).parameter_count == 32_768
    assert make(vit_b_16, prompts=2, text_tokens=4).parameter_count == 4_096
    drawn = make(backbone, prompts=32).text_prompt
    assert drawn.shape == (32, 16, 16) and 0.019 < drawn.std() < 0.021


def test_the_preset_adds_the_class_token_on_imagenet_and_has_three_small_batches() -> None:
    resolved = {name: presets.resolve("paper", "plot", shots=16, dataset=name) for name in presets.dataset_names()}
    for preset in resolved.values():
        options = make_config("plot", preset.method)
        assert (options.prompts, options.text_tokens, options.official_stop) == (4, 16, True)  # type: ignore[attr-defined]
    assert {name for name, preset in resolved.items() if preset.method["global_weight"]} == {
        "imagenet", "imagenetv2", "imagenet_sketch", "imagenet_a", "imagenet_r",  # the last four are tests of the first
    }  # fmt: skip
    small = {name for name, preset in resolved.items() if preset.train["batch_size"] == 32}
    assert small == {"fgvc_aircraft", "oxford_flowers", "stanford_cars"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompts": 0}, r"^prompts: expected 1 or more, found 0\. For example: prompts=4$"),
        ({"text_tokens": 0}, r"^text_tokens: expected 1 or more, found 0\."),
        ({"global_weight": -1}, r"^global_weight: expected 0 or more, found -1"),
        ({"regularization": 0.01}, r"^regularization: expected 0\.05 or more, found 0\.01\."),
        ({"official_stop": "maybe"}, r"^official_stop: expected true or false, found 'maybe'\."),
        ({"class_position": "end"}, r"^plot has no option 'class_position'\."),
    ],
)
def test_bad_options_are_one_line(options: dict[str, object], message: str) -> None:
    with pytest.raises(MethodError, match=message) as caught:
        make_config("plot", options)
    assert "\n" not in str(caught.value)


def test_tokens_beyond_the_context_are_one_line(backbone: Any) -> None:
    with pytest.raises(ValueError, match="learn fewer context tokens"):
        make(backbone, text_tokens=75)
