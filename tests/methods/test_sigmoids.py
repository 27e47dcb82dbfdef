"""Each class by itself: the loss, where the bias starts, and which methods can."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import brentq

from daptune.clip.backbone import load_backbone
from daptune.errors import MethodError
from daptune.methods import METHODS, make_config
from daptune.methods.losses import intra_dispersion, intra_dispersion_of_several
from daptune.methods.sigmoids import UNIT, Sigmoids, judge_by_itself

CPU = torch.device("cpu")


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_the_loss_is_the_mean_of_binary_cross_entropies() -> None:
    head = Sigmoids(3, learned=True, device=CPU)
    bias = [0.1, -0.2, 0.0]
    head.bias.data = torch.tensor(bias)
    logits, labels = torch.randn(5, 3), torch.tensor([[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 0, 1], [1, 0, 0]]).bool()
    weights = torch.tensor([2.0, 0.5, 1.0])
    for given in (None, weights):
        total = 0.0
        for row in range(5):
            for c in range(3):
                p = sigmoid(float(logits[row, c]) + UNIT * bias[c])
                term = -math.log(p if labels[row, c] else 1 - p)
                total += term * (1.0 if given is None else float(given[c]))
        assert float(head.loss(logits, labels, given).detach()) == pytest.approx(total / 15, rel=1e-5)


def test_the_bias_starts_at_the_shares_of_the_classes() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = 25 + 4 * torch.randn(40, 3, generator=generator)
    labels = torch.rand(40, 3, generator=generator) < torch.tensor([0.5, 0.1, 0.0])
    head = Sigmoids(3, learned=True, device=CPU)
    head.start(logits, labels)
    for c in range(3):
        share = (int(labels[:, c].sum()) + 0.5) / 41
        raw = logits[:, c].double().numpy()
        root = brentq(lambda b, raw=raw, share=share: float(np.mean(1 / (1 + np.exp(-raw - b)))) - share, -200, 200)
        assert UNIT * float(head.bias[c].detach()) == pytest.approx(root, abs=1e-4)


def test_intra_dispersion_draws_an_image_to_each_of_its_prototypes() -> None:
    z, s = torch.randn(4, 6), torch.randn(3, 6)
    labels = torch.tensor([[1, 0, 1], [0, 1, 0], [0, 0, 0], [1, 1, 1]]).bool()
    expected = 0.0
    for row in range(4):
        own = [float((z[row] - s[c]).square().mean()) for c in range(3) if labels[row, c]]
        expected += sum(own) / len(own) if own else 0.0
    assert float(intra_dispersion_of_several(z, s, labels)) == pytest.approx(expected / 4, rel=1e-5)
    alone = torch.tensor([2, 0, 1, 0])
    one_hot = alone.unsqueeze(1) == torch.arange(3)
    torch.testing.assert_close(intra_dispersion_of_several(z, s, one_hot), intra_dispersion(z, s[alone]))


REFUSED = {
    "prototype", "linear_probe", "proda", "tip_adapter", "tip_adapter_f", "plot_pp", "promptsrc", "clap", "gda",
    "lp_pp", "mvlpt",
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(METHODS))
def test_a_method_takes_several_labels_or_says_so(name: str, made_up_backbone: str) -> None:
    """Those that can are trained by the loss of `Sigmoids` alone: its gradient reaches what they learn."""
    method = METHODS[name](load_backbone(made_up_backbone), ["cat", "dog", "bird"], make_config(name, {}))
    if name in REFUSED:
        with pytest.raises(MethodError, match=f"{name} learns one class per image and cannot learn several labels"):
            judge_by_itself(method)
        return
    learned = [p for p in method.parameters() if p.requires_grad]
    head = judge_by_itself(method)
    assert "sigmoids.bias" in method.state_dict() and head.bias.requires_grad == bool(learned)
    images, labels = torch.randn(2, 3, 32, 32), torch.tensor([[True, False, True], [False, False, False]])
    method.eval()
    with torch.no_grad():
        scores = method.answer(images)
        torch.testing.assert_close(scores, method.logits(images).float() + UNIT * head.bias)
        p = method.probabilities(scores, 2.0)
        torch.testing.assert_close(p, 1 / (1 + (-scores / 2).exp()))
    if learned:
        loss = method.train().cross_entropy(method.logits(images), labels)
        loss.backward()
        assert method.batch_accuracy is None and head.bias.grad is not None
        assert any(p.grad is not None and p.grad.abs().max() > 0 for p in learned)


def test_a_plug_in_with_a_loss_of_its_own_must_say_that_it_can() -> None:
    class Own(METHODS["coop"]):  # type: ignore[misc, valid-type]
        def losses(self, images: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
            return super().losses(images, labels)

    class Can(Own):
        multi_label = True

    assert METHODS["coop"].multi_label and not Own.multi_label and Can.multi_label


def test_other_classes_have_no_bias(made_up_backbone: str, tmp_path: Path) -> None:
    method = METHODS["coop"](load_backbone(made_up_backbone), ["cat", "dog"])
    judge_by_itself(method)
    with pytest.raises(MethodError, match="cannot take new class names"):
        method.with_classes(["a", "b"])
