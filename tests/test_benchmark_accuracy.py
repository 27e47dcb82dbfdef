"""Time to the same accuracy: both sides compute the same thing, and arrivals are read off their curves."""

import pytest
import torch
from torch.nn import functional as F

from benchmarks import run
from benchmarks.accuracy import as_row, compare, line, straightforward
from benchmarks.reference import dapt_losses
from daptune import METHODS, load_backbone
from studies.curve import Curve, first_at, stays_at


def test_the_reference_computes_with_the_embedded_backbone_what_daptune_does() -> None:
    backbone = load_backbone("tiny", precision="fp32")
    names = ["sea animal", "flag", "musical instrument"]
    ours = METHODS["dapt"](backbone, names)
    images, labels = torch.randn(5, 3, 48, 48, generator=torch.Generator().manual_seed(0)), torch.arange(5) % 3
    ours.prototypes = F.normalize(torch.randn(3, 128, generator=torch.Generator().manual_seed(1)), dim=-1)
    classes = [backbone.tokenizer.encode(name) for name in names]
    expected = dapt_losses(
        straightforward(backbone), ours.text_prompt, ours.vision_prompt, classes, ours.prototypes, images, labels
    )
    found = ours.losses(images, labels)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-5)


def test_a_curve_stops_its_clock_while_it_looks() -> None:
    now = [0.0]

    def right() -> int:
        now[0] += 100.0
        return 7

    curve = Curve(right, clock=lambda: now[0])
    for step in range(1, 103):
        now[0] += 1.0
        curve(step, 102)
    assert curve.steps == [0, *range(3, 103, 3)] and curve.seconds == [0.0, *range(3, 103, 3)]
    assert len(curve.right) == len(curve.steps)


def test_arrivals() -> None:
    assert first_at([9, 1, 5, 4, 5], 5) == 2 and stays_at([9, 1, 5, 4, 5], 5) == 4
    assert first_at([9, 1, 2], 5) is None and stays_at([1, 6, 4], 5) is None and stays_at([6, 6], 5) == 1


@pytest.mark.parametrize(("ours", "there"), [([0, 3, 6, 6], 20), ([0, 3, 4, 3], None)])
def test_what_is_compared(ours: list[int], there: int | None) -> None:
    reference = {"images": 10, "steps": [0, 200, 400], "seconds": [0.0, 4.0, 8.0], "right": [2, 7, 5]}
    found = compare(reference, {"steps": [0, 10, 20, 30], "seconds": [0.0, 0.1, 0.2, 0.3], "right": ours})
    assert found["level"] == 0.5 and found["reference"]["steps"] == 200
    assert found["daptune"]["steps"] == there and found["ends"] == ours[-1] - 5
    shown = line({**found, "seed": 1, "images": 10})
    assert ("| 20.0 | 40.0 |" if there else "| - | - |") in shown
    curves = {"reference": {"peak_gb": 2.0}, "daptune": {"peak_gb": 1.0}}
    row = as_row([{**found, "seed": 1, "curves": curves}])
    assert row["reference"] == {"seconds": [8.0], "peak_gb": 2.0} and row["never"] == (0 if there else 1)
    assert row.get("ratio") == (pytest.approx(8.0 / 0.2) if there else None)
    assert ("| 40.0 |" if there else "| - | - |") in run.line(row)
