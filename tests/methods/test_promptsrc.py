"""PromptSRC: its four losses written out, the sixty templates, and the Gaussian mean over epochs."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from daptune.errors import MethodError
from daptune.methods import METHODS, make_config
from daptune.methods.promptsrc import PromptSRC
from daptune.methods.templates import SIXTY, template_features
from daptune.train import TrainConfig, fit_method
from daptune.train.checkpoint import read_checkpoint

from ..clip.test_model import CONFIG, made_up_clip, plain_image, plain_text
from .conftest import NAMES, MadeUp, Pictures, make_pictures
from .plain import check_gradients, images_of, plain_cross_entropy, plain_prompted_text

LABELS = torch.tensor([1, 3, 0])
TEMPLATES = ("a photo of a {}.", "a {} in a video game.", "itap of the {}.")


def make(backbone: Any, **options: object) -> PromptSRC:
    return PromptSRC(backbone, NAMES, make_config("promptsrc", options))  # type: ignore[arg-type]


SCALE = 5.0  # at CLIP's 100, random features give predictions of 0 and 1, which hardly diverge


@pytest.fixture
def mild(backbone: Any) -> Any:
    """The backbone with a logit scale at which predictions are uncertain."""
    backbone.clip.logit_scale.data.fill_(math.log(SCALE))
    return backbone


def moved(method: PromptSRC) -> PromptSRC:
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5)))
    return method


def unit(rows: list[Tensor]) -> Tensor:
    stacked = torch.stack(rows)
    return stacked / stacked.norm(dim=-1, keepdim=True)


def plain_frozen_text(backbone: Any, templates: tuple[str, ...]) -> Tensor:
    """The unit mean of features of their own length (C, D), one text of 77 tokens at a time."""
    rows = []
    for name in NAMES:
        ids = backbone.tokenizer([template.replace("{}", name.replace("_", " ")) for template in templates])
        embedded = [(backbone.clip.text.token_embedding(row), int(row.argmax())) for row in ids]
        rows.append(sum(plain_text(backbone.clip, *each) for each in embedded) / len(templates))
    return unit(rows)  # type: ignore[arg-type]


def test_losses_and_gradients_are_the_written_out_sums(mild: Any) -> None:
    method = moved(make(mild, text_depth=2, vision_depth=3, templates=TEMPLATES))
    images = images_of(3)
    texts = [f"a photo of a {name.replace('_', ' ')}." for name in NAMES]
    w = torch.stack([plain_prompted_text(mild, text, list(method.text_prompt)) for text in texts])
    z = unit([plain_image(mild.clip, image, method.vision_prompt, "end") for image in images])
    w0 = plain_frozen_text(mild, TEMPLATES)
    z0 = unit([plain_image(mild.clip, image, None, "end") for image in images])
    logits, frozen = SCALE * z @ w.mT, SCALE * z0 @ w0.mT
    text = sum((w[c, d] - w0[c, d]).abs() for c in range(4) for d in range(24)) / (4 * 24)
    image = sum((z[b, d] - z0[b, d]).abs() for b in range(3) for d in range(24)) / (3 * 24)
    p, p0 = (rows.double().softmax(-1) for rows in (logits, frozen))
    divergence = sum(p0[b, c] * (p0[b, c] / p[b, c]).log() for b in range(3) for c in range(4)) / (3 * 4)
    losses = method.losses(images, LABELS)
    assert set(losses) == {"cross_entropy", "text", "image", "logit", "total"}
    entropy = plain_cross_entropy(logits, LABELS)
    torch.testing.assert_close(losses["text"], text, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(losses["image"], image, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(losses["logit"], divergence.float(), atol=1e-6, rtol=1e-5)  # type: ignore[union-attr]
    torch.testing.assert_close(losses["cross_entropy"], entropy, atol=1e-5, rtol=1e-5)
    total = entropy + 25 * text + 10 * image + divergence.float()  # type: ignore[union-attr]
    check_gradients(losses["total"], total, [method.text_prompt, method.vision_prompt])


def test_weights_weigh(mild: Any) -> None:
    method = moved(make(mild, templates=TEMPLATES, text_weight=3, image_weight=0.5, logit_weight=7))
    losses = method.losses(images_of(3), LABELS)
    expected = losses["cross_entropy"] + 3 * losses["text"] + 0.5 * losses["image"] + 7 * losses["logit"]
    torch.testing.assert_close(losses["total"], expected)
    none = moved(make(mild, text_weight=0, image_weight=0, logit_weight=0)).losses(images_of(3), LABELS)
    assert torch.equal(none["total"], none["cross_entropy"]) and none["text"] > 0


def test_frozen_features_come_from_the_sixty_templates(backbone: Any) -> None:
    assert len(set(SIXTY)) == 60 and all(template.count("{}") == 1 for template in SIXTY)
    method = make(backbone)
    method.losses(images_of(3), LABELS)
    assert method.frozen_features is not None and "frozen_features" not in method.state_dict()
    torch.testing.assert_close(method.frozen_features, plain_frozen_text(backbone, SIXTY), atol=1e-5, rtol=1e-5)
    assert (method.frozen_features - template_features(backbone, NAMES, SIXTY)).abs().max() > 1e-5  # means of unit ones


def test_it_starts_as_ivlp_of_its_depths(backbone: Any) -> None:
    method = make(backbone)
    ivlp = METHODS["ivlp"](backbone, NAMES, make_config("ivlp", {"text_tokens": 4, "vision_tokens": 4}))
    assert method.state_dict().keys() == ivlp.state_dict().keys()
    assert all(torch.equal(tensor, ivlp.state_dict()[name]) for name, tensor in method.state_dict().items())
    assert torch.equal(method.logits(images_of(2)), ivlp.logits(images_of(2)))


@pytest.mark.parametrize(
    ("options", "count"),
    [({}, 46_080), ({"text_depth": 12, "vision_depth": 12}, 61_440), ({"vision_depth": 3}, 27_648)],
)
def test_parameter_counts_of_vit_b_16(vit_b_16: Any, options: dict[str, Any], count: int) -> None:
    assert make(vit_b_16, **options).parameter_count == count


def test_nine_layers_or_all_of_each_tower(tokenizer: Any) -> None:
    sizes = replace(CONFIG, context_length=77, vocab_size=tokenizer.vocab_size, text_layers=2, vision_layers=11)
    method = make(MadeUp(made_up_clip(sizes), tokenizer))
    assert method.text_prompt.shape == (2, 4, 16) and method.vision_prompt.shape == (9, 4, 32)


# --- the mean over epochs ---------------------------------------------------------------------------------------------


def stepped(method: PromptSRC, epochs: int) -> list[dict[str, Tensor]]:
    """What was learned at the end of each of `epochs` epochs, as `after_epoch` saw it."""
    seen = []
    for epoch in range(1, epochs + 1):
        with torch.no_grad():
            for parameter in method.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(epoch)))
        seen.append({name: tensor.clone() for name, tensor in method.state_dict().items()})
        method.after_epoch(epoch, epochs)
        if epoch < epochs:
            assert all(torch.equal(tensor, seen[-1][name]) for name, tensor in method.state_dict().items())
    return seen


@pytest.mark.parametrize(
    ("options", "mean", "std"),
    [
        ({}, 12.0, 12.0),
        ({"average_mean": 15, "average_std": 1}, 15, 1),
        ({"average_mean": 45, "average_std": 5}, 45, 5),
    ],
)
def test_prompts_end_as_the_gaussian_sum(backbone: Any, options: dict[str, Any], mean: float, std: float) -> None:
    method = make(backbone, **options)
    seen = stepped(method, 20)
    densities = [math.exp(-((e - mean) ** 2) / (2 * std**2)) / (std * math.sqrt(2 * math.pi)) for e in range(1, 21)]
    weights = [density / sum(densities) for density in densities]  # the official code's
    for name, tensor in method.state_dict().items():
        expected = sum(weight * state[name].double() for weight, state in zip(weights, seen, strict=True))
        torch.testing.assert_close(tensor, expected.float(), atol=1e-6, rtol=1e-5)  # type: ignore[union-attr]


def test_without_average_and_without_any_weight_the_last_prompts_stay(backbone: Any) -> None:
    for options in ({"average": False}, {"average_mean": 1e6, "average_std": 0.1}):
        method = make(backbone, **options)
        seen = stepped(method, 3)
        assert all(torch.equal(tensor, seen[-1][name]) for name, tensor in method.state_dict().items())
    assert make(backbone, average=False).running_state() == {}


def test_the_loop_averages_once_an_epoch_and_saves_prompts_alone(backbone: Any, tmp_path: Path) -> None:
    """What the loop ends with is the Gaussian sum of what each epoch ended with; the mean is in checkpoints alone."""
    train, val = make_pictures(4, 3), make_pictures(4, 2, 5)
    runs: dict[bool, list[dict[str, Tensor]]] = {}
    for average in (False, True):
        method = make(backbone, average=average, average_mean=2, average_std=1, templates=TEMPLATES)
        ends: list[dict[str, Tensor]] = []

        class Watched(Pictures):
            def evaluation(self, method: PromptSRC = method, ends: Any = ends) -> Any:
                ends.append({name: tensor.clone() for name, tensor in method.state_dict().items()})
                return super().evaluation()

        config, run_dir = TrainConfig(epochs=3, lr=0.01), tmp_path / str(average)
        history = fit_method(method, train, config, val=Watched(val.images, val.labels), run_dir=run_dir)
        runs[average] = ends
        assert len(history.rows) == len(ends) == 3
        assert set(method.state_dict()) == {"text_prompt", "vision_prompt"}
        assert all(torch.equal(tensor, ends[-1][name]) for name, tensor in method.state_dict().items())
        checkpoint = read_checkpoint(run_dir)
        assert checkpoint is not None and set(checkpoint.section("running")) == (set(ends[0]) if average else set())
    weights = [math.exp(-0.5 * (e - 2) ** 2) for e in (1, 2, 3)]
    for name, tensor in runs[True][-1].items():
        expected = sum(g * end[name] for g, end in zip(weights, runs[False], strict=True)) / sum(weights)
        torch.testing.assert_close(tensor, expected, atol=1e-6, rtol=1e-5)
        assert not torch.equal(tensor, runs[False][-1][name])


def test_best_val_compares_epochs_and_at_the_end_their_mean(backbone: Any) -> None:
    """The chosen prompts are those that were validated: the epoch's own, or the mean where the last epoch is best."""
    method = make(backbone, templates=TEMPLATES)
    seen: list[dict[str, Tensor]] = []

    class Watched(Pictures):
        def evaluation(self) -> Any:
            seen.append({name: tensor.clone() for name, tensor in method.state_dict().items()})
            return super().evaluation()

    val = make_pictures(4, 2, 5)
    config = TrainConfig(epochs=3, lr=0.01, select="best_val")
    history = fit_method(method, make_pictures(4, 3), config, val=Watched(val.images, val.labels))
    assert history.best_epoch is not None
    chosen = seen[history.best_epoch - 1]
    assert all(torch.equal(tensor, chosen[name]) for name, tensor in method.state_dict().items())
    means = method.running_state()
    assert all(torch.equal(seen[-1][name], means[name]) for name in means)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text_depth": 4}, r"^text_depth: expected 0 \(every layer\) to 3, .*text tower, found 4\. .*text_depth=3$"),
        ({"vision_depth": 4}, r"^vision_depth: expected 0 \(every layer\) to 3, .*vision tower, found 4\. "),
        ({"text_depth": -1}, r"^text_depth: expected 0 .*found -1\."),
        ({"text_tokens": 5}, r"^text_tokens: expected 1 to 4 \(context_init's\) or an empty context_init, found 5\."),
        ({"templates": ("a photo",)}, r"^templates: expected each to hold one \{\}, .*found \('a photo',\)\."),
        ({"text_weight": -1}, r"^text_weight: expected 0 or more, found -1"),
        ({"image_weight": -1}, r"^image_weight: expected 0 or more, found -1"),
        ({"logit_weight": -1}, r"^logit_weight: expected 0 or more, found -1"),
        ({"average_mean": -1}, r"^average_mean: expected 0 \(0\.6 of the epochs\) or an epoch from 1, found -1"),
        ({"average_std": -1}, r"^average_std: expected 0 \(0\.6 of the epochs\) or a number above, found -1"),
        ({"average": 2}, r"^average: expected true or false, found 2\."),
        ({"gpa": True}, r"^promptsrc has no option 'gpa'\."),
    ],
)
def test_bad_options_are_one_line(backbone: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(MethodError, match=message) as caught:
        make(backbone, **options)
    assert "\n" not in str(caught.value)
