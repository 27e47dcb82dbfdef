"""The tables at the end."""

from dataclasses import replace

import pytest

from daptune.bench.results import Result
from daptune.bench.summary import share_text, summarise, tables


def row(label: str, shots: int, seed: int, dataset: str = "a", kind: str = "fewshot", **accuracy: float) -> Result:
    return Result("k", "plan", kind, label, label, dataset, shots, seed, accuracy=accuracy)


def test_methods_by_shots_with_mean_and_deviation_over_seeds() -> None:
    rows = [row("x", 1, 1, test=0.5), row("x", 1, 2, test=0.6), row("x", 4, 1, test=0.7), row("y", 4, 1, test=0.1)]
    rows.append(replace(row("y", 4, 2, test=0.9), status="failed"))
    (table,) = tables(rows)
    assert table.columns == ("method", "1 shot", "4 shots")
    assert table.cells == (("x", "55.0 ± 7.1", "70.0"), ("y", "", "10.0"))


def test_accuracies_and_map_are_in_tables_of_their_own() -> None:
    several = replace(row("x", 1, 1), mean_average_precision={"test": 0.25, "val": 0.5})
    first, second = tables([row("x", 1, 1, test=0.5), several])
    assert (first.figure, first.cells) == ("accuracy", (("x", "50.0"),))
    assert (second.figure, second.cells) == ("mAP", (("x", "25.0"),)) and "test images" in second.title


def test_validation_images_where_test_images_were_left_alone() -> None:
    (table,) = tables([row("x", 1, 1, val=0.5)])
    assert table.title == "fewshot: a, validation images" and table.cells == (("x", "50.0"),)


def test_over_data_sets_only_whole_seeds_count() -> None:
    rows = [row("x", 1, 1, "a", test=0.2), row("x", 1, 1, "b", test=0.4), row("x", 1, 2, "a", test=0.9)]
    (table,) = tables(rows)
    assert table.cells == (("x", "30.0"),) and "mean over 2 data sets" in table.title


def test_domains_are_columns() -> None:
    rows = [row("x", 16, 1, kind="domain", val=0.1, test=0.2, far=0.3), row("z", 16, 1, kind="domain", test=0.4)]
    (table,) = tables(rows)
    assert table.columns == ("method", "test", "far") and table.cells == (("x", "20.0", "30.0"), ("z", "40.0", ""))
    (table,) = tables([row("x", 16, 1, kind="base2new", test=0.2, base=0.2, new=0.5)])
    assert table.columns == ("method", "base", "new")


@pytest.mark.parametrize(("values", "text"), [([], ""), ([0.5], "50.0"), ([0.5, 0.5], "50.0 ± 0.0")])
def test_cells(values: list[float], text: str) -> None:
    found = summarise(values)
    assert ("" if found is None else share_text(found.mean, found.deviation)) == text
