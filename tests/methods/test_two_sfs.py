"""2SFS against copies of the towers with other layer norms, and its two stages against a loop with two optimizers."""

from collections.abc import Callable
from copy import deepcopy
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from daptune import presets
from daptune.classifier import FewShotClassifier, load
from daptune.clip.norms import GivenNorm, NormedBlock
from daptune.errors import Interrupted, MethodError
from daptune.methods import METHODS, make_config
from daptune.methods.sigmoids import judge_by_itself
from daptune.methods.two_sfs import TwoSFS
from daptune.train import TrainConfig, fit_method
from daptune.train.checkpoint import read_checkpoint
from daptune.train.history import Progress
from daptune.train.schedule import stage_of

from ..clip.test_model import plain_image, plain_text
from .conftest import NAMES, Pictures, make_pictures, uneven_pictures
from .plain import check_gradients, images_of, plain_cross_entropy

LABELS = torch.tensor([1, 3, 0])


def make(backbone: Any, names: Any = NAMES, **options: object) -> TwoSFS:
    return TwoSFS(backbone, names, make_config("two_sfs", options))  # type: ignore[arg-type]


def moved(method: TwoSFS, size: float = 0.3) -> TwoSFS:
    """Away from the tower's norms and x = 0, each tensor by other numbers."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))
    return method


def unit(rows: Tensor) -> Tensor:
    return rows / rows.norm(dim=-1, keepdim=True)


def plain_z(clip: Any, images: Tensor) -> Tensor:
    return unit(torch.stack([plain_image(clip, image, None, "end") for image in images]))


def plain_t(clip: Any, backbone: Any, names: Any = NAMES, template: str = "a photo of a {}.") -> Tensor:
    ids = backbone.tokenizer([template.replace("{}", name.replace("_", " ")) for name in names])
    return unit(torch.stack([plain_text(clip, clip.text.token_embedding(row), int(row.argmax())) for row in ids]))


def norms_of(clip: Any, side: str) -> list[list[Any]]:
    tower = clip.text if side == "text" else clip.visual
    return [[block.ln_1, block.ln_2] for block in tower.transformer.blocks]


def changed(backbone: Any, method: TwoSFS) -> Any:
    """A copy of the CLIP whose norms are the learned ones."""
    clip = deepcopy(backbone.clip)
    for side, learned in (("text", method.text_norms), ("vision", method.vision_norms)):
        for j, pair in enumerate(norms_of(clip, side) if learned is not None else ()):
            for n, norm in enumerate(pair):
                del norm.weight, norm.bias  # a module takes nothing but a parameter in the place of one
                norm.weight, norm.bias = learned.weight[j, n], learned.bias[j, n]  # type: ignore[union-attr]
    return clip


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"encoder": "text"},
        {"encoder": "vision", "template": "{} texture."},
        {"template": "this {}, a type of pet."},
    ],
)
@pytest.mark.parametrize("stage", [0, 1])
def test_logits_and_the_gradients_of_each_stage_are_those_of_towers_with_these_norms(
    backbone: Any, options: dict[str, Any], stage: int
) -> None:
    method, images = moved(make(backbone, **options)).train(), images_of(3)
    clip, template = changed(backbone, method), method.config.template
    z, t = plain_z(clip, images), plain_t(clip, backbone, template=template)
    method.stage = stage
    torch.testing.assert_close(method.text_features(), t, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(method.image_features(images), z, atol=1e-5, rtol=1e-5)
    logits = 100 * z @ unit(t + method.residual).mT
    torch.testing.assert_close(method.logits(images) / 100, logits / 100, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(deepcopy(method).eval().logits(images) / 100, logits / 100, atol=1e-5, rtol=1e-5)
    norms = [p for name, p in method.named_parameters() if "norms" in name]
    ours, plain = method.losses(images, LABELS)["total"], plain_cross_entropy(logits, LABELS)
    torch.testing.assert_close(ours, plain, atol=1e-5, rtol=1e-5)
    learns, waits = ([method.residual], norms) if stage else (norms, [method.residual])
    check_gradients(ours, plain, learns)
    method.losses(images, LABELS)["total"].backward()
    assert all(p.grad is not None for p in learns) and all(p.grad is None for p in waits)


def test_untrained_it_is_zero_shot_and_learns_the_norms_of_all_blocks(backbone: Any, vit_b_16: Any) -> None:
    plain, method = METHODS["zero_shot"](backbone, NAMES), make(backbone)
    torch.testing.assert_close(method.logits(images_of(3)), plain.logits(images_of(3)), atol=1e-3, rtol=1e-5)
    shapes = {name: tuple(tensor.shape) for name, tensor in method.state_dict().items()}
    norms = {
        f"{side}_norms.{kind}": (3, 2, w) for side, w in (("text", 16), ("vision", 32)) for kind in ("weight", "bias")
    }
    assert shapes == {**norms, "residual": (4, 24)}
    both = 12 * 2 * 2 * (768 + 512)  # twelve blocks, two norms, weight and bias
    assert make(vit_b_16).parameter_count == both + 4 * 512 == 61_440 + 2_048
    assert make(vit_b_16, encoder="text").parameter_count == 12 * 2 * 2 * 512 + 4 * 512


def test_the_tower_keeps_its_own_norms(backbone: Any) -> None:
    before = {name: tensor.clone() for name, tensor in backbone.clip.state_dict().items()}
    method = moved(make(backbone))
    block = method.vision_norms.blocks(backbone.clip.visual.transformer)[1]  # type: ignore[union-attr]
    frozen = backbone.clip.visual.transformer.blocks[1]
    assert isinstance(block, NormedBlock) and block.mlp is frozen.mlp and block.attn is frozen.attn
    assert isinstance(block.ln_2, GivenNorm) and block.ln_2.eps == frozen.ln_2.eps and not [*block.ln_2.parameters()]
    method.losses(images_of(3), LABELS)["total"].backward()
    assert all(torch.equal(before[name], tensor) for name, tensor in backbone.clip.state_dict().items())
    assert all(p.grad is None for p in backbone.clip.parameters())


# --- the two stages ---------------------------------------------------------------------------------------------------


def fitted(
    method: TwoSFS, pictures: Pictures, after: Callable[[Progress], None] | None = None, **settings: Any
) -> TwoSFS:
    config = TrainConfig(warmup_epochs=0, **{"epochs": 2, "lr": 0.01, "seed": 3} | settings)
    fit_method(method, pictures, config, progress=after)
    return method


@pytest.mark.parametrize(("share", "first"), [(0.6, 3), (0.4, 2), (0.17, 1), (0.0, 0), (1.0, 6)])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_norms_move_in_the_first_stage_alone_and_the_classifier_in_the_second(
    backbone: Any, uneven: Pictures, share: float, first: int, optimizer: str
) -> None:
    """Six steps in two epochs, also where the stages part within an epoch; momentum and decay move nothing either."""
    method = make(backbone, first_stage=share)
    seen, rates = [{name: tensor.clone() for name, tensor in method.state_dict().items()}], []

    def look(state: Progress) -> None:
        seen.append({name: tensor.clone() for name, tensor in method.state_dict().items()})
        rates.append(state.lr)

    fitted(method, uneven, look, optimizer=optimizer, weight_decay=0.1)
    for step, (before, now) in enumerate(pairwise(seen)):
        moving = {name for name in now if not torch.equal(before[name], now[name])}
        assert moving == ({"residual"} if step >= first else {name for name in now if "norms" in name}), step
    expected = []
    for length in (first, 6 - first):  # each stage has a whole cosine, as torch's own
        own = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.01)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(own, max(1, length))
        for _ in range(length):
            expected.append(cosine.get_last_lr()[0])
            own.step()
            cosine.step()
    assert rates == pytest.approx(expected) and len(rates) == 6


def test_a_fit_is_two_plain_loops_with_an_optimizer_each(backbone: Any, uneven: Pictures) -> None:
    """As the official code has it: the norms first, then a classifier of its own that starts at the text features."""
    method = fitted(make(backbone, first_stage=0.5), uneven, optimizer="sgd", weight_decay=0.0)
    clip, batches = deepcopy(backbone.clip), [*uneven.epoch(0), *uneven.epoch(1)]
    norms = [norm for side in ("text", "vision") for pair in norms_of(clip, side) for norm in pair]
    learned = [p for norm in norms for p in norm.parameters()]
    for p in learned:
        p.requires_grad_(True)

    def descend(parameters: list[Any], part: list[Any], logits: Callable[[Tensor], Tensor]) -> None:
        optimizer = torch.optim.SGD(parameters, lr=0.01, momentum=0.9)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, len(part))
        for images, labels in part:
            optimizer.zero_grad()
            plain_cross_entropy(logits(images), labels).backward()
            optimizer.step()
            cosine.step()

    descend(learned, batches[:3], lambda x: 100 * plain_z(clip, x) @ plain_t(clip, backbone).mT)
    w = torch.nn.Parameter(plain_t(clip, backbone).detach())
    descend([w], batches[3:], lambda x: 100 * plain_z(clip, x).detach() @ unit(w).mT)
    for side, ours in (("text", method.text_norms), ("vision", method.vision_norms)):
        for j, pair in enumerate(norms_of(clip, side)):
            for n, norm in enumerate(pair):
                torch.testing.assert_close(ours.weight[j, n], norm.weight, atol=1e-5, rtol=1e-5)  # type: ignore[union-attr]
                torch.testing.assert_close(ours.bias[j, n], norm.bias, atol=1e-5, rtol=1e-5)  # type: ignore[union-attr]
    torch.testing.assert_close(method.logit_weights(), unit(w), atol=1e-5, rtol=1e-5)
    assert (unit(w) - plain_t(clip, backbone)).abs().max() > 0.01


@pytest.mark.parametrize("after", range(1, 9))
def test_a_run_stopped_anywhere_goes_on_to_the_same_bits(backbone: Any, tmp_path: Path, after: int) -> None:
    """Nine steps in three epochs: five of the norms, and four of the classifier from within the second epoch on."""
    train, config = uneven_pictures((2, 5, 1, 3)), TrainConfig(epochs=3, lr=0.01, weight_decay=0.1)
    whole = make(backbone)
    fit_method(whole, train, config)
    seen: list[int] = []
    with pytest.raises(Interrupted):
        fit_method(
            make(backbone), train, config, run_dir=tmp_path, progress=lambda p: seen.append(p.step),
            stop=lambda: seen[-1:] == [after],
        )  # fmt: skip
    checkpoint = read_checkpoint(tmp_path)
    assert checkpoint is not None
    states = {name.rsplit("/", 1)[0] for name in checkpoint.section("optimizer")}
    assert ("residual" in states) == (after > 5) == bool(checkpoint.section("method")["residual"].any())
    resumed = make(backbone)
    fit_method(resumed, train, config, run_dir=tmp_path, resume=True)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], tensor), name


def test_the_second_stage_runs_the_text_tower_once_and_the_image_tower_forward(
    backbone: Any, uneven: Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[bool] = []
    for tower, name in ((backbone.clip.text, "features"), (backbone.clip, "encode_image")):
        original = getattr(tower, name)
        monkeypatch.setattr(
            tower, name, lambda *a, o=original, n=name, **k: calls.append((n, torch.is_grad_enabled())) or o(*a, **k)
        )
    fitted(make(backbone, first_stage=0.5), uneven)
    second = [("features", False), *[("encode_image", False)] * 3]
    assert sorted(calls[:6]) == sorted([("features", True), ("encode_image", True)] * 3)
    assert sorted(calls[6:]) == sorted(second)


def test_other_norms_are_not_answered_with_the_text_features_of_before(backbone: Any) -> None:
    method = make(backbone).train()
    method.stage = 1
    before = method.logit_weights().detach()
    other = moved(make(backbone))
    method.load_state_dict(other.state_dict())
    assert (before - method.logit_weights()).abs().max() > 0.01
    torch.testing.assert_close(method.logit_weights(), other.eval().logit_weights(), atol=1e-6, rtol=0)


def test_batches_of_a_step_share_the_classifier_in_the_second_stage_too(backbone: Any, uneven: Pictures) -> None:
    method = moved(make(backbone)).train()
    method.stage = 1
    for images, labels in uneven.epoch(0):
        method.losses(images, labels)["total"].backward()
    expected, method.residual.grad = method.residual.grad, None
    with method.text_features_once():
        for images, labels in uneven.epoch(0):
            method.losses(images, labels)["total"].backward()
    assert expected is not None and expected.any()
    torch.testing.assert_close(method.residual.grad, expected, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(
    ("shares", "total", "stages"),
    [
        ((), 4, [0] * 4),
        ((0.6,), 7, [0] * 4 + [1] * 3),
        ((0.2, 0.6), 10, [0] * 2 + [1] * 4 + [2] * 4),
        ((0.0,), 2, [1] * 2),
    ],
)
def test_the_stage_follows_from_the_step(shares: tuple[float, ...], total: int, stages: list[int]) -> None:
    """Shares of the steps are rounded down, as in the official code."""
    found = [stage_of(step, total, shares) for step in range(total)]
    assert [stage for stage, _ in found] == stages
    for step, (stage, own) in enumerate(found):
        assert step in own and len(own) == stages.count(stage)


# --- classes ----------------------------------------------------------------------------------------------------------


def test_a_class_of_the_fit_has_its_learned_row_and_a_new_one_its_text(backbone: Any) -> None:
    method = moved(make(backbone)).eval()
    other = method.with_classes({"a": "dog", "b": NAMES[2], "c": "Sea Lake", "d": ("cat", "dog")})
    clip = changed(backbone, method)
    t = plain_t(clip, backbone, ["dog", NAMES[2], "sea lake"])
    expected = unit(t + torch.stack([torch.zeros(24), method.residual[2], method.residual[1]]))
    w = other.logit_weights()
    torch.testing.assert_close(w[:3], expected, atol=1e-5, rtol=1e-5)
    both = unit(plain_t(clip, backbone, ["cat", "dog"]).sum(0))  # of two names: the row of "cat" is another class's
    torch.testing.assert_close(w[3], both, atol=1e-5, rtol=1e-5)
    alike = moved(make(backbone, ["cat", "Cat", "dog"])).eval()  # CLIP reads the first two as one
    turned = make(backbone, ["dog", "Cat", "cat"])
    turned.load_state_dict(turned.for_own_classes(alike.state_dict(), alike.prompt_names))
    for row, place in enumerate((2, 1, 0)):
        assert torch.equal(turned.residual[row], alike.residual[place])
    damaged = alike.state_dict() | {"residual": torch.zeros(2, 24)}
    with pytest.raises(MethodError, match=r"^two_sfs: tensor 'residual' expected shape \(3, 24\), found \(2, 24\)"):
        turned.load_state_dict(turned.for_own_classes(damaged, alike.prompt_names))


def test_an_adapter_for_other_classes_comes_back_and_starts_a_fit_by_names(
    made_up_backbone: str, tmp_path: Path, pictures_of: Callable[[list[str]], tuple[list[Any], list[str]]]
) -> None:
    quick = {"epochs": 2, "batch_size": 2, "lr": 0.02}
    first = FewShotClassifier("two_sfs", made_up_backbone, shots=None, train_options=quick)
    first.fit(*pictures_of(["cat", "dog", "sea lion"]))
    learned = first.method_
    assert learned.residual.any() and learned.ensemble is None
    folder = first.save(tmp_path / "a")
    other = first.with_classes(["bird", "dog"])
    again = load(other.save(tmp_path / "b"))
    for each in (other.method_, again.method_):
        assert torch.equal(each.residual[1], learned.residual[learned.class_names.index("dog")])
        assert not each.residual[0].any() and torch.equal(each.text_norms.weight, learned.text_norms.weight)
    # as many classes in another order, one of them new: nothing moves at this rate
    still = quick | {"lr": 1e-30, "warmup_epochs": 0}
    second = FewShotClassifier("two_sfs", made_up_backbone, shots=None, train_options=still, start_from=folder)
    second.fit(*pictures_of(["bird", "cat", "sea lion"]))
    found = dict(zip(second.method_.class_names, second.method_.residual, strict=True))
    for name in ("cat", "sea lion"):
        assert torch.equal(found[name], learned.residual[learned.class_names.index(name)]), name
    assert not found["bird"].abs().gt(1e-20).any()
    assert torch.equal(second.method_.vision_norms.weight, learned.vision_norms.weight)


@pytest.fixture
def pictures_of() -> Callable[[list[str]], tuple[list[Any], list[str]]]:
    def make_them(names: list[str]) -> tuple[list[Any], list[str]]:
        found = make_pictures(len(names), 2)
        images = ((found.images.permute(0, 2, 3, 1) + 3) / 6 * 255).clamp(0, 255).byte().numpy()
        return list(images), [names[int(label)] for label in found.labels]

    return make_them


def test_several_labels_are_learned_in_both_stages(backbone: Any) -> None:
    """The binary cross-entropy of an indicator matrix reaches what the stage learns."""
    method = moved(make(backbone)).train()
    judge_by_itself(method)
    truth = torch.tensor([[1.0, 0, 0, 1], [0, 0, 0, 0], [0, 1, 0, 0]])
    for method.stage in (0, 1):
        method.zero_grad()
        method.losses(images_of(3), truth)["total"].backward()
        learned = {name.split("_")[0] for name, p in method.named_parameters() if p.grad is not None and p.grad.any()}
        assert learned - {"sigmoids.bias"} == ({"residual"} if method.stage else {"text", "vision"})


def test_no_shares_beyond_the_whole(backbone: Any) -> None:
    with pytest.raises(MethodError, match=r"^first_stage: expected a number from 0 to 1, found 1\.5\."):
        make(backbone, first_stage=1.5)


@pytest.mark.parametrize("dataset", [None, "eurosat", "dtd", "imagenet"])
@pytest.mark.parametrize("shots", [1, 4, 16])
def test_the_preset_takes_300_steps_a_shot_whatever_the_data(dataset: str | None, shots: int) -> None:
    for experiment in presets.EXPERIMENTS:
        preset = presets.resolve("paper", "two_sfs", shots=shots, dataset=dataset, experiment=experiment)
        train, options = TrainConfig(**preset.train), make_config("two_sfs", preset.method)
        assert (options.first_stage, options.encoder, options.template) == (0.6, "both", "a photo of a {}.")  # type: ignore[attr-defined]
        assert (train.optimizer, train.lr, train.weight_decay, train.batch_size) == ("adamw", 2e-4, 0.01, 32)
        assert (train.schedule, train.warmup_epochs, train.min_crop, train.flip) == ("cosine", 0, 0.08, 0.5)
        images = shots * {None: 100, "eurosat": 10, "dtd": 47, "imagenet": 1000}[dataset]
        batches = max(1, images // 32)
        assert train.epochs is not None and abs(train.epochs * batches - 300 * shots) <= batches / 2
