"""ProLIP: features, loss and steps against plain float64, on classes of different sizes."""

from typing import Any

import numpy as np
import pytest
import torch

from daptune.methods.prolip import ProLIP, ProLIPConfig
from daptune.methods.zero_shot import ZeroShot

from .conftest import NAMES, Pictures


def with_residual(method: ProLIP) -> ProLIP:
    torch.nn.init.normal_(method.residual, std=2.0, generator=torch.Generator().manual_seed(3))
    return method


def hidden(backbone: Any, images: torch.Tensor) -> np.ndarray:
    """h (n, W): the class token before the projection."""
    return np.array([backbone.clip.encode_image(i[None], projected=False)[0].detach().double().numpy() for i in images])


@pytest.mark.parametrize("per_shot", [True, False])
def test_logits_and_loss_are_the_written_out_ones(per_shot: bool, backbone: Any, uneven: Pictures) -> None:
    method = with_residual(ProLIP(backbone, NAMES, ProLIPConfig(constraint_weight=0.5, per_shot=per_shot)))
    method.before_fit(uneven)
    start = backbone.clip.visual.proj.double().numpy()
    p = start + 0.01 * method.residual.detach().double().numpy()
    z = hidden(backbone, uneven.images) @ p
    z = np.array([row / np.sqrt((row**2).sum()) for row in z])
    logits = float(method.scale) * z @ method.text_features().double().numpy().T
    np.testing.assert_allclose(method.logits(uneven.images).detach().numpy() / 100, logits / 100, atol=1e-5)
    labels = uneven.labels.tolist()
    cross_entropy = np.mean([np.log(np.exp(row - row[y]).sum()) for row, y in zip(logits, labels, strict=True)])
    shots = len(labels) / 4 if per_shot else 1  # 2, 5, 1 and 3 images
    total = cross_entropy + 0.5 / shots * ((p - start) ** 2).sum()
    terms = method.losses(uneven.images, uneven.labels)
    assert terms["distance"].item() == pytest.approx(((p - start) ** 2).sum(), rel=1e-5)
    assert terms["total"].item() == pytest.approx(total, rel=1e-5)
    torch.testing.assert_close(method.visual_projection().detach().double().numpy(), p, atol=1e-6, rtol=0)


def test_adam_on_r_takes_the_official_steps_on_p(backbone: Any, uneven: Pictures) -> None:
    """The rate 1e-3 and eps 1e-6 on R are 1e-5 and 1e-4 on P."""
    method = ProLIP(backbone, NAMES)
    method.before_fit(uneven)
    h, start = torch.from_numpy(hidden(backbone, uneven.images)), backbone.clip.visual.proj.detach().double()
    p = start.clone().requires_grad_()
    w = method.text_features().double()
    theirs = torch.optim.Adam([p], lr=1e-5, eps=1e-4)
    ours = torch.optim.Adam(method.parameters(), lr=1e-3, eps=1e-6)
    for step in range(5):
        logits = float(method.scale) * torch.nn.functional.normalize(h @ p, dim=-1) @ w.T
        distance = ((p - start) ** 2).sum()
        assert step or distance == 0
        theirs.zero_grad()
        (torch.nn.functional.cross_entropy(logits, uneven.labels) + distance / (11 / 4)).backward()
        theirs.step()
        ours.zero_grad()
        method.losses(uneven.images, uneven.labels)["total"].backward()
        ours.step()
    moved = (p - start).abs().max().item()
    assert moved > 3e-5
    found = 0.01 * method.residual.detach().double()
    torch.testing.assert_close(found / moved, (p - start).detach() / moved, atol=1e-3, rtol=0)


def test_it_starts_as_zero_shot_takes_new_classes_and_leaves_the_tower(backbone: Any, uneven: Pictures) -> None:
    method = ProLIP(backbone, NAMES)
    torch.testing.assert_close(method.logits(uneven.images), ZeroShot(backbone, NAMES).logits(uneven.images))
    before = backbone.clip.visual.proj.clone()
    with_residual(method)
    assert torch.equal(backbone.clip.visual.proj, before)
    other = method.with_classes(["zebra", NAMES[1]])
    torch.testing.assert_close(other.logits(uneven.images)[:, 1], method.logits(uneven.images)[:, 1])


def test_sizes(vit_b_16: Any) -> None:
    method = ProLIP(vit_b_16, NAMES)
    assert method.parameter_count == 393_216 and set(method.state_dict()) == {"residual"}
    assert method.trains_on_features and method.encoded_size == 768 and not method.joins_ensemble
