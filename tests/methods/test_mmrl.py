"""MMRL: both heads, loss and gradients against plain loops; fused scores and new classes; views; parameter counts."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from daptune.classifier import FewShotClassifier, load
from daptune.clip.preprocess import Preprocess
from daptune.data.loader import ImageLoader
from daptune.data.table import ImageTable
from daptune.errors import MethodError
from daptune.methods import make_config
from daptune.methods.mmrl import MMRL
from daptune.train.features import EncodedImages

from ..clip.test_joining import plain_image_read
from ..clip.test_model import plain_block, plain_norm
from .conftest import NAMES
from .plain import check_gradients, images_of, plain_cross_entropy

LABELS = torch.tensor([1, 3, 0])
SMALL = {"width": 6, "tokens": 2}


def make(backbone: Any, **options: object) -> MMRL:
    method = MMRL(backbone, NAMES, make_config("mmrl", SMALL | options))  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5)))
    return method


def plain_tokens(method: MMRL, maps: Any) -> Tensor:
    """(J, n, W): each row of R through each block's map."""
    pairs = zip(maps.weight, maps.bias, strict=True)
    return torch.stack([torch.stack([weight @ r + bias for r in method.representation]) for weight, bias in pairs])


def plain_text(backbone: Any, text: str, tokens: Tensor, block: int) -> Tensor:
    """The unit feature (D,) of a text of 77 tokens, n more from `block` on."""
    clip, ids, count = backbone.clip, backbone.tokenizer([text])[0], tokens.shape[1]
    x = clip.text.token_embedding(ids) + clip.text.positional_embedding
    for place, layer in enumerate(clip.text.transformer.blocks):
        if place >= block:
            x = torch.cat([x[:1], tokens[place - block], x[1 if place == block else 1 + count :]])
        x = plain_block(layer, x, True, clip.config.activation)
    assert len(x) == 77 + count
    eot = int(ids.argmax()) + count
    feature = plain_norm(clip.text.ln_final, x[eot : eot + 1])[0] @ clip.text.text_projection
    return feature / feature.norm()


def unit(rows: list[Tensor]) -> Tensor:
    return torch.stack([row / row.norm() for row in rows])


@pytest.mark.parametrize(
    ("options", "template", "block"),
    [
        ({}, "a photo of a {}.", 1),  # the share 5 / 12 of three blocks
        ({"first_block": 3, "dataset": "eurosat", "consistency_weight": 3.0}, "a centered satellite photo of {}.", 2),
    ],
)
def test_heads_loss_and_gradients_are_the_written_out_ones(
    options: dict[str, object], template: str, block: int, backbone: Any
) -> None:
    method, images = make(backbone, class_share=0.6, **options), images_of(3)
    texts = [template.format(name.replace("_", " ")) for name in NAMES]
    w = torch.stack([plain_text(backbone, t, plain_tokens(method, method.texts.maps), block) for t in texts])
    torch.testing.assert_close(method.text_features(), w, atol=1e-5, rtol=1e-5)
    visual = plain_tokens(method, method.images.maps)
    read = [plain_image_read(backbone.clip, image, block, visual) for image in images]
    z = unit([rows[0] @ backbone.clip.visual.proj for rows in read])
    z_r = unit([sum(rows[1:]) / 2 @ method.images.projection for rows in read])
    torch.testing.assert_close(method.image_features(images), z, atol=1e-5, rtol=1e-5)
    one, two = 100 * z @ w.mT, 100 * z_r @ w.mT
    torch.testing.assert_close(method.logits(images) / 100, (0.6 * one + 0.4 * two) / 100, atol=1e-5, rtol=1e-5)

    z0 = unit(list(backbone.clip.encode_image(images)))
    w0 = unit([backbone.clip.encode_text(backbone.tokenizer([text]))[0] for text in texts])
    apart = [sum(1 - (a * b).sum() for a, b in zip(*pair, strict=True)) / len(pair[0]) for pair in ((z, z0), (w, w0))]
    losses = method.losses(images, LABELS)
    for name, value in zip(("image", "text"), apart, strict=True):
        torch.testing.assert_close(losses[name], value, atol=1e-5, rtol=1e-5)
    weight = options.get("consistency_weight", method.config.consistency_weight)
    total = 0.6 * plain_cross_entropy(one, LABELS) + 0.4 * plain_cross_entropy(two, LABELS) + weight * sum(apart)
    torch.testing.assert_close(losses["total"], total, atol=1e-4, rtol=1e-5)
    check_gradients(losses["total"], total, list(method.parameters()))


def test_scores_are_fused_if_all_classes_are_those_of_the_fit(backbone: Any) -> None:
    """Also for some of them, and again for all after others were named."""
    method, images = make(backbone), images_of(3)
    fused = method.logits(images)
    alone = 100 * method.image_features(images) @ method.text_features().mT
    assert not torch.allclose(fused, alone, atol=1)
    some, new = method.with_classes(NAMES[1:3]), method.with_classes(["dog", *NAMES[1:3]])
    torch.testing.assert_close(some.logits(images), fused[:, 1:3], atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(new.logits(images)[:, 1:], alone[:, 1:3], atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(new.with_classes(NAMES).logits(images), fused, atol=1e-4, rtol=1e-5)


def test_an_adapter_for_new_classes_knows_those_of_its_fit(
    made_up_backbone: str, paths_and_labels: tuple[list[str], list[str]], tmp_path: Path
) -> None:
    classifier = FewShotClassifier("mmrl", made_up_backbone, method_options=SMALL, train_options={"epochs": 1})
    images, labels = paths_and_labels
    classifier.fit(images, labels)
    names = sorted(set(labels))
    new = classifier.with_classes([*names, "dog"])
    again = load(new.save(tmp_path / "new"))
    assert set(again.method_.config.fitted) == set(names)
    assert (again.predict_proba(images[:3]) == new.predict_proba(images[:3])).all()
    back = again.with_classes(names)
    np.testing.assert_allclose(back.predict_proba(images[:3]), classifier.predict_proba(images[:3]), atol=1e-5)


def test_text_features_follow_a_step_after_an_evaluation(backbone: Any) -> None:
    """The official code keeps those of its first evaluation."""
    method, images = make(backbone).eval(), images_of(3)
    with torch.no_grad():
        before = method.logits(images), method.class_text_features()
        method.representation.add_(0.5)
        after = method.class_text_features()
    assert not torch.allclose(before[1], after)
    torch.testing.assert_close(after, method.text_features().detach())


def test_states_below_the_tokens_are_computed_once_for_each_view(backbone: Any) -> None:
    method, sizes = make(backbone), np.repeat([0, 1, 2, 3], [2, 5, 1, 3])
    arrays = np.random.default_rng(0).integers(0, 256, (11, 32, 32, 3), dtype=np.uint8)
    loader = ImageLoader(ImageTable(tuple(arrays), sizes, tuple(NAMES)), Preprocess(32), 5, drop_last=False)
    passes: list[int] = []
    below = backbone.clip.visual.below
    backbone.clip.visual.below = lambda images, block: passes.append(len(images)) or below(images, block)
    states = EncodedImages(loader, method.encode, torch.device("cpu"))
    for _ in range(2):
        for batch, labels in states.evaluation():
            assert batch.shape == (len(labels), 1 + 16 + 1, 32) and batch[0].numel() == method.encoded_size
            method.losses(batch, labels)["total"].backward()
    assert passes == [5, 5, 1]
    images, labels = next(iter(loader.evaluation()))
    first = next(states.evaluation())[0]
    for seen in (first, first[:, :-1]):
        torch.testing.assert_close(method.losses(seen, labels), method.losses(images, labels), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(method.logits(first), method.eval().logits(images), atol=1e-4, rtol=1e-5)
    assert method.encode(images).shape == (5, 1 + 16, 32)  # in evaluation, nothing of the frozen tower


@pytest.mark.parametrize("noise", [True, False])
def test_first_values(backbone: Any, noise: bool) -> None:
    method = MMRL(backbone, NAMES, make_config("mmrl", {"random_projection": noise}))  # type: ignore[arg-type]
    assert method.representation.shape == (5, 512) and 0.018 < float(method.representation.detach().std()) < 0.022
    for maps, width in ((method.images.maps, 32), (method.texts.maps, 16)):
        assert maps.weight.shape == (2, width, 512) and maps.bias.shape == (2, width)
        for values in (maps.weight.detach(), maps.bias.detach()):
            assert torch.equal(values[0], values[1]) and 0.6 < float(values.abs().max()) * 512**0.5 <= 1
    proj = backbone.clip.visual.proj
    assert torch.equal(method.images.projection, proj) is not noise
    if noise:
        assert float(method.images.projection.detach().std()) == pytest.approx(32**-0.5, rel=0.1)


@pytest.mark.parametrize(("width", "count"), [(512, 4_992_256), (2048, 18_762_496)])
def test_sizes_of_vit_b_16(vit_b_16: Any, width: int, count: int) -> None:
    """Seven blocks of each tower, from the sixth on; 2048 for EuroSAT."""
    method = MMRL(vit_b_16, NAMES, make_config("mmrl", {"width": width}))  # type: ignore[arg-type]
    assert method.parameter_count == count and (method.images.block, method.texts.block) == (5, 5)
    assert method.encoded_size == 198 * 768 and not method.joins_ensemble and not method.shares_image_tower


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"first_block": 4},
            r"^first_block: expected 0 \(the paper's share\) to 3, the blocks of the tower, found 4\.",
        ),
        ({"class_share": 2}, r"^class_share: expected a number from 0 to 1, found 2\.0\."),
        ({"tokens": 0}, r"^tokens: expected 1 token or more, found 0\."),
        ({"template": "{} {}"}, r"^template: expected one \{\} in it for the class name, found '\{\} \{\}'\."),
        ({"dataset": "eurosta"}, r"^dataset: there are no templates for 'eurosta'\."),
    ],
)
def test_bad_options_are_one_line(backbone: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(MethodError, match=message) as caught:
        make(backbone, **options)
    assert "\n" not in str(caught.value)
