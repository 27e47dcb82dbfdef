"""PLOT++ against loops over images, classes, contexts and sets: both stages, phrases of any length, stopped runs."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from daptune import presets
from daptune.errors import Interrupted, MethodError
from daptune.methods import make_config
from daptune.methods.plot_pp import PHRASES, PLOTPP
from daptune.train import TrainConfig, fit_method
from daptune.train.checkpoint import read_checkpoint

from ..clip.test_model import plain_image
from .conftest import NAMES, Pictures, make_pictures
from .plain import check_gradients, images_of, plain_cross_entropy, plain_prompted_text
from .test_plot import LABELS, plain_logits

UNEVEN = ("a photo of a", "this is", "this is centered satellite photo of")


def make(backbone: Any, **options: object) -> PLOTPP:
    return PLOTPP(backbone, NAMES, make_config("plot_pp", options))  # type: ignore[arg-type]


def stirred(backbone: Any, **options: object) -> PLOTPP:
    method = make(backbone, **options)
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5)))
    return method


def plain_features(backbone: Any, method: PLOTPP, images: Tensor) -> tuple[Tensor, Tensor]:
    """Raw features (B, V, D) and (N, C, D). Learned tokens take the first places of each whole text, as officially:
    where the phrase has more words, they stay; where it has fewer, those of the name are written over."""
    sets = [plain_image(backbone.clip, image, u[None], "end") for image in images for u in method.vision_prompt]
    texts = [[f"{phrase} {name.replace('_', ' ')}." for name in NAMES] for phrase in method.config.phrases]
    words = [
        plain_prompted_text(backbone, text, [v], unit=False)
        for v, row in zip(method.text_prompt, texts, strict=True)
        for text in row
    ]
    return torch.stack(sets).unflatten(0, (len(images), -1)), torch.stack(words).unflatten(0, (-1, len(NAMES)))


@pytest.mark.parametrize("visual_stage", [False, True])
@pytest.mark.parametrize(
    ("options", "tokens"),
    [
        ({}, 4),
        ({"phrases": UNEVEN, "vision_sets": 3}, 2),
        ({"phrases": UNEVEN, "official_phrases": True, "official_stop": True}, 4),
        ({"phrases": ["one picture of a"], "vision_sets": 2, "vision_tokens": 3}, 4),
    ],
)
def test_losses_and_gradients_are_the_written_out_sums(
    backbone: Any, options: dict[str, Any], tokens: int, visual_stage: bool
) -> None:
    method, images = stirred(backbone, **options), images_of(3)
    assert method.text_prompt.shape == (len(method.config.phrases), tokens, 16)
    sets, words = plain_features(backbone, method, images)
    torch.testing.assert_close(method.image_sets(images)[0], sets, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(method.logit_weights(), words, atol=1e-5, rtol=1e-5)
    for found, raw in ((method.image_features(images), sets.mean(1)), (method.text_features(), words.mean(0))):
        torch.testing.assert_close(found, raw / raw.norm(dim=-1, keepdim=True), atol=1e-5, rtol=1e-5)
    stop = {"epsilon": 0.1, "together": method.config.official_stop}
    predicted = plain_logits(sets, sets.mean(1), words, 0.0, **stop)
    torch.testing.assert_close(method.logits(images) / 100, predicted / 100, atol=1e-5, rtol=1e-5)

    method.visual_stage.fill_(visual_stage)
    torch.testing.assert_close(method.logits(images) / 100, predicted / 100, atol=1e-5, rtol=1e-5)
    mixed = plain_logits(sets, sets.mean(1), words, 1.0, **stop) if visual_stage else predicted
    loss, losses = plain_cross_entropy(mixed, LABELS), method.losses(images, LABELS)
    torch.testing.assert_close(losses["total"], loss, atol=1e-4, rtol=1e-5)
    learning = [method.vision_prompt] if visual_stage else [method.vision_prompt, method.text_prompt]
    check_gradients(losses["total"], loss, learning)
    method.losses(images, LABELS)["total"].backward()
    assert method.vision_prompt.grad is not None and (method.text_prompt.grad is None) == visual_stage


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize(("share", "alone"), [(0.5, 2), (0.3, 2), (0.1, 1), (0.0, 0), (1.0, 4)])
def test_the_contexts_wait_for_their_share_of_the_epochs(
    backbone: Any, share: float, alone: int, optimizer: str
) -> None:
    """Not a bit of them moves in the first stage, by weight decay or momentum either; then they do."""
    method, val = make(backbone, visual_share=share), make_pictures(4, 2, 5)
    ends = [{name: tensor.clone() for name, tensor in method.state_dict().items()}]

    class Watched(Pictures):
        def evaluation(self) -> Any:
            ends.append({name: tensor.clone() for name, tensor in method.state_dict().items()})
            return super().evaluation()

    config = TrainConfig(epochs=4, lr=0.01, optimizer=optimizer, weight_decay=0.1)
    fit_method(method, make_pictures(4, 3), config, val=Watched(val.images, val.labels))
    moved = [not torch.equal(a["text_prompt"], b["text_prompt"]) for a, b in pairwise(ends)]
    assert moved == [False] * alone + [True] * (4 - alone)
    assert all(not torch.equal(a["vision_prompt"], b["vision_prompt"]) for a, b in pairwise(ends))
    assert not method.visual_stage and set(ends[0]) == {"text_prompt", "vision_prompt"}


def test_a_share_that_is_whole_epochs_is_not_one_more(backbone: Any) -> None:
    method = make(backbone, visual_share=0.7)
    method.before_fit(make_pictures(4, 1))
    stages = []
    for epoch in range(1, 11):
        stages.append(bool(method.visual_stage))
        method.after_epoch(epoch, 10)
    assert stages == [True] * 7 + [False] * 3


@pytest.mark.parametrize("after", [0, 5, 6, 7, 8, 10])  # asked after each of 3 steps and each epoch: stage 2 is from 7
def test_a_run_stopped_in_either_stage_goes_on_to_the_same_bits(backbone: Any, tmp_path: Path, after: int) -> None:
    train, config = make_pictures(4, 3), TrainConfig(epochs=3, lr=0.01, weight_decay=0.1)
    whole = make(backbone, visual_share=0.6)
    fit_method(whole, train, config)
    asked = iter(range(100))
    stopped = make(backbone, visual_share=0.6)
    with pytest.raises(Interrupted):
        fit_method(stopped, train, config, run_dir=tmp_path, stop=lambda: next(asked) >= after)
    checkpoint = read_checkpoint(tmp_path)
    assert checkpoint is not None and bool(checkpoint.section("running")["visual_stage"]) == (after < 7)
    resumed = make(backbone, visual_share=0.6)
    fit_method(resumed, train, config, run_dir=tmp_path, resume=True)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], tensor), name


def test_first_values(backbone: Any) -> None:
    method, table = make(backbone, vision_sets=64), backbone.clip.text.token_embedding.weight
    for context, phrase in zip(method.text_prompt, PHRASES, strict=True):
        assert torch.equal(context, table[backbone.tokenizer.encode(phrase)])
    assert method.vision_prompt.shape == (64, 2, 32) and 0.019 < method.vision_prompt.std() < 0.021
    short = make(backbone, phrases=UNEVEN, official_phrases=True).text_prompt[1]
    assert torch.equal(short, table[[*backbone.tokenizer.encode("this is"), backbone.tokenizer.eot, 0]])


def test_parameter_counts_of_vit_b_16(vit_b_16: Any) -> None:
    assert make(vit_b_16).parameter_count == 8_192 + 6_144
    assert make(vit_b_16, phrases=["a_photo_of"] * 2, vision_sets=1).parameter_count == 2 * 3 * 512 + 2 * 768


def test_the_preset_has_phrases_for_each_data_set_and_both_stages_epochs(backbone: Any) -> None:
    """The first phrase fixes how many tokens are learned, on ImageNet too, where the third is shorter."""
    tokens = {}
    for dataset in presets.dataset_names():
        preset = presets.resolve("paper", "plot_pp", shots=1, dataset=dataset)
        method = PLOTPP(backbone, NAMES, make_config("plot_pp", preset.method))  # type: ignore[arg-type]
        tokens[dataset] = method.text_prompt.shape[1]
        assert preset.train["epochs"] == 100
        assert method.vision_prompt.shape == (4, 2, 32) and len(method.text_prompt) == 4
    five = {"dtd", "eurosat", "fgvc_aircraft", "food101", "oxford_flowers", "oxford_pets"}
    assert tokens == {name: 5 if name in five else 6 if name == "ucf101" else 4 for name in tokens}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"phrases": []}, r"^phrases: expected one phrase or more, none of them empty, found \(\)\. For example: "),
        ({"phrases": ["a", "_ "]}, r"^phrases: expected one phrase or more, none of them empty, found \('a', '_ '\)\."),
        (
            {"phrases": ["one two three four", "one"], "official_phrases": True},
            r"^phrases: expected none to be more than 2 words shorter than the first, found \('one two ",
        ),
        ({"vision_sets": 0}, r"^vision_sets: expected 1 or more, found 0\. For example: vision_sets=4$"),
        ({"vision_tokens": 0}, r"^vision_tokens: expected 1 token or more, found 0\."),
        ({"visual_share": 1.5}, r"^visual_share: expected a number from 0 to 1, found 1\.5\."),
        ({"visual_share": -0.5}, r"^visual_share: expected a number from 0 to 1, found -0\.5\."),
        ({"regularization": 0.0}, r"^regularization: expected 0\.05 or more, found 0\.0\."),
        ({"global_weight": 1}, r"^plot_pp has no option 'global_weight'\."),
    ],
)
def test_bad_options_are_one_line(backbone: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(MethodError, match=message) as caught:
        make(backbone, **options)
    assert "\n" not in str(caught.value)
