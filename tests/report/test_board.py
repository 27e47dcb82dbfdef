"""Means and differences against plain loops."""

import math
import random
import statistics
from pathlib import Path

import numpy as np
import pytest

from daptune.bench.results import Result
from daptune.metrics import PairedDifference
from daptune.report.bench_page import boards_of
from daptune.report.board import Board, choose_focus, harmonic, verdict
from daptune.report.runs import read_runs

from .made_up import SEEDS, line, write_run


@pytest.fixture(scope="module")
def results(bench_run: Path) -> tuple[Result, ...]:
    return read_runs([bench_run]).results


@pytest.fixture(scope="module")
def board(results: tuple[Result, ...]) -> Board:
    return boards_of(results, "dapt")["fewshot"]


def test_the_order_of_labels(board: Board) -> None:
    assert board.labels == ("zero_shot", "linear_probe", "coop", "dapt")
    assert board.datasets == ("demo", "flowers") and board.shots == (1, 4, 16)


def test_a_summary_is_the_mean_and_deviation_over_seeds(board: Board, results: tuple[Result, ...]) -> None:
    values = [
        r.accuracy["test"]
        for r in results
        if (r.experiment, r.label, r.dataset, r.shots) == ("fewshot", "coop", "flowers", 4)
    ]
    found = board.mean_over(("flowers",), "coop", 4)
    assert found is not None and len(values) == len(SEEDS)
    assert found.mean == pytest.approx(statistics.mean(values))
    assert found.deviation == pytest.approx(statistics.stdev(values))


def test_the_mean_over_data_sets_is_taken_seed_by_seed(board: Board) -> None:
    each = [board.mean_over((name,), "dapt", 16) for name in board.datasets]
    found = board.mean_over(board.datasets, "dapt", 16)
    assert found is not None
    by_seed = [statistics.mean(s.values[seed] for s in each if s is not None) for seed in range(3)]
    assert found.values == pytest.approx(by_seed)
    assert board.mean_over((*board.datasets, "missing"), "dapt", 16) is None


def test_zero_shot_stands_for_every_number_of_shots_and_every_seed(board: Board) -> None:
    assert board.rows("zero_shot", "demo", 16) == board.rows("zero_shot", "demo", 1) != ()
    found = board.difference("dapt", "zero_shot", ("demo",), 16)
    ours, theirs = (board.mean_over(("demo",), label, 16) for label in ("dapt", "zero_shot"))
    assert found is not None and ours is not None and theirs is not None
    assert found.difference == pytest.approx(ours.mean - theirs.mean)


def test_a_difference_agrees_with_a_plain_bootstrap(board: Board, results: tuple[Result, ...]) -> None:
    """Two data sets, each resampled by itself, image by image, and averaged."""
    datasets, stream, means = ("demo", "flowers"), random.Random(0), []
    gaps = []
    for dataset in datasets:
        by_label = []
        for label in ("coop", "dapt"):
            names = ("fewshot", label, dataset, 16)
            rows = [r for r in results if (r.experiment, r.label, r.dataset, r.shots) == names]
            by_label.append([statistics.mean(int(r.correct["test"][i]) for r in rows) for i in range(150)])
        gaps.append([b - a for a, b in zip(*by_label, strict=True)])
    for _ in range(3000):
        means.append(statistics.mean(statistics.mean(stream.choices(gap, k=len(gap))) for gap in gaps))
    found = board.difference("dapt", "coop", datasets, 16)
    assert found is not None
    assert found.difference == pytest.approx(statistics.mean(statistics.mean(gap) for gap in gaps))
    assert [found.low, found.high] == pytest.approx(list(np.quantile(means, [0.025, 0.975])), abs=0.004)
    below, above = np.mean(np.array(means) <= 0), np.mean(np.array(means) >= 0)
    assert found.p_value == pytest.approx(2 * min(below, above), abs=0.03)


def test_images_that_differ_in_number_are_not_compared(tmp_path: Path) -> None:
    other = line("fewshot", "coop", "demo", 16, 1, {"test": 0.5})
    other["correct"]["test"] = other["correct"]["test"][:-1]
    rows = [line("fewshot", "dapt", "demo", 16, 1, {"test": 0.5}), other]
    board = Board(read_runs([write_run(tmp_path / "run", rows)]).results, "dapt")
    assert board.difference("dapt", "coop", ("demo",), 16) is None


def test_the_most_shots_are_those_of_the_focus(tmp_path: Path) -> None:
    rows = [line("fewshot", label, "demo", shots, 1, {"test": 0.5}) for label, shots in (("dapt", 1), ("coop", 4))]
    assert Board(read_runs([write_run(tmp_path / "run", rows)]).results, "dapt").top_shots == 1


def test_one_seed_has_no_deviation(tmp_path: Path) -> None:
    rows = [line("fewshot", "dapt", "demo", 16, 1, {"test": 0.5})]
    found = Board(read_runs([write_run(tmp_path / "run", rows)]).results, "dapt").mean_over(("demo",), "dapt", 16)
    assert found is not None and math.isnan(found.deviation)


def test_small_things(results: tuple[Result, ...]) -> None:
    assert harmonic(0.5, 0.25) == pytest.approx(statistics.harmonic_mean([0.5, 0.25])) and harmonic(0, 0.5) == 0
    assert [verdict(PairedDifference(0, *ends, 0.5)) for ends in ((0.01, 0.1), (-0.1, 0.1), (-0.1, -0.01))] == [
        "ahead",
        "level",
        "behind",
    ]
    assert choose_focus(results, None) == "dapt" and choose_focus(results, "coop") == "coop"
    assert choose_focus([r for r in results if r.label in ("coop", "linear_probe")], None) == "coop"
