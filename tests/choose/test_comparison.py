"""The figures of a comparison, and the one-standard-error rule, by hand."""

import json
import math

import numpy as np
import pytest

from daptune.choose.comparison import Comparison, RankedRow, Row, first_near


def comparison(**correct: list[float]) -> Comparison:
    """Rows in the given order, with as many images right."""
    rows = [Row(name, np.array(of, float), np.zeros(len(of)), 1.0) for name, of in correct.items()]
    return Comparison(tuple(rows), "by hand")


def of_twenty(right: int) -> list[float]:
    return [1.0] * right + [0.0] * (20 - right)


def test_the_first_within_one_standard_error_of_the_best_is_chosen() -> None:
    # 16 of 20: 0.8, with a standard error of sqrt(0.8 * 0.2 / 19) = 0.0918, so that 0.7082 counts as near
    assert math.sqrt(0.8 * 0.2 / 19) == pytest.approx(0.0918, abs=1e-4)
    best, near, far = of_twenty(16), of_twenty(15), of_twenty(14)  # 0.8, 0.75, 0.7
    assert comparison(near=near, best=best).chosen.method == "near"
    assert comparison(far=far, best=best).chosen.method == "best"
    assert comparison(far=far, best=best, near=near).chosen.method == "best"
    assert comparison(far=far, near=near, best=best).chosen.method == "near"
    found = comparison(far=far, near=near, best=best).choice()
    assert [row["near"] for row in found["rows"]] == [False, True, True]
    assert found["method"] == "near" and found["best"] == "best"
    assert found["why"] == (
        "near, the first in the order of preference within one standard error of the best (best, 80.0 ± 9.2 %)"
    )


def test_reasons() -> None:
    best, far = of_twenty(16), of_twenty(5)
    assert comparison(best=best, far=far).why == "best, the most accurate, and the first in the order of preference"
    assert comparison(far=far, best=best).why == (
        "best, the most accurate; none before it in the order of preference is within one standard error"
    )
    untried = Comparison((Row("a", note="no images"), Row("b", note="no images")), "")
    assert untried.best is None and untried.why == "a, the first in the order of preference (no images)"


def test_differences_are_image_by_image() -> None:
    # `other` is worse on images 0 to 3 and better on image 19: gaps 1, 1, 1, 1, -1 and fifteen times 0
    best, other = of_twenty(16), [0.0] * 4 + [1.0] * 12 + [0.0] * 3 + [1.0]
    gaps = [1, 1, 1, 1, -1, *[0] * 15]
    mean = sum(gaps) / 20
    error = math.sqrt(sum((gap - mean) ** 2 for gap in gaps) / 19 / 20)
    row = comparison(best=best, other=other).to_json()["rows"][1]
    assert row["difference"] == pytest.approx(-0.15) and mean == pytest.approx(0.15)
    assert row["interval"] == pytest.approx([-0.15 - 1.96 * error, -0.15 + 1.96 * error])
    assert row["accuracy"] == 13 / 20 and row["seconds"] == 1.0
    assert row["standard_error"] == pytest.approx(math.sqrt(0.65 * 0.35 / 19))


def test_of_equally_accurate_ones_the_likelier_is_the_best() -> None:
    rows = [Row(name, np.ones(3), np.full(3, of)) for name, of in (("a", -2.0), ("b", -1.0))]
    found = Comparison((*rows, Row("c", note="slow")), "")
    assert found.best is rows[1] and found.chosen is rows[0]


def test_of_several_labels_the_map_stands_for_the_accuracy() -> None:
    # pseudo-values of mean 0.5 and 0.4, where the mAPs themselves are 0.52 and 0.41
    first, second = np.array([0.9, 0.1, 0.7, 0.3]), np.array([0.5, 0.2, 0.8, 0.1])
    best = RankedRow("best", first, np.full(4, -0.5), 2.0, precision=0.52)
    other = RankedRow("other", second, np.full(4, -0.6), 1.0, precision=0.41)
    found = Comparison((other, best, Row("slow", note="not tried")), "by hand", ("gda",)).choice()
    error = math.sqrt(sum((value - 0.5) ** 2 for value in first) / 3 / 4)
    gaps = first - second
    of_gap = math.sqrt(sum((gap - 0.1) ** 2 for gap in gaps) / 3 / 4)
    row, own, untried = found["rows"]
    assert "accuracy" not in row and (row["mean_average_precision"], own["mean_average_precision"]) == (0.41, 0.52)
    assert own["standard_error"] == pytest.approx(error) and row["near"] and own["nll"] == 0.5
    assert row["difference"] == pytest.approx(-0.11)
    assert row["interval"] == pytest.approx([-0.11 - 1.96 * of_gap, -0.11 + 1.96 * of_gap])
    assert untried == {"method": "slow", "note": "not tried"} and found["left_out"] == ["gda"]
    assert (found["best"], found["method"]) == ("best", "other")
    assert Comparison((best, other), "").why == "best, the highest mAP, and the first in the order of preference"
    assert "left_out" not in Comparison((best, other), "").to_json()


def test_what_was_not_tried_is_not_chosen() -> None:
    rows = (Row("slow", note="not tried"), Row("tried", np.array([0.0, 1.0]), np.zeros(2)))
    found = Comparison(rows, "").choice()
    assert found["method"] == "tried" and found["rows"][0] == {"method": "slow", "note": "not tried"}
    assert first_near([math.nan, 0.1, 0.5, 0.6], 0.6, 0.15) == 2


def test_one_image_says_nothing() -> None:
    found = comparison(wrong=[0.0], right=[1.0])
    assert found.best is not None and found.best.method == "right" and found.best.error == math.inf
    assert found.chosen.method == "wrong"
    assert json.loads(json.dumps(found.choice()))["method"] == "wrong"
