"""The benchmark of prediction from files: its sides agree, on a small model."""

from pathlib import Path

import torch

from benchmarks import pictures

from .test_benchmarks import SMALL


def test_prediction_of_files_agrees_with_the_straightforward_way(tmp_path: Path) -> None:
    paths = pictures.make_pictures(tmp_path, 5, 64, 48)
    named = pictures.sides(paths, 2, size=SMALL)
    result = pictures.measure(named, len(paths), 1)
    assert set(result["rows"]) == {"daptune", "tower", "one by one", "batches"}
    assert max(result["differences"].values()) < 1e-5
    assert named["tower"]().shape == (5, 16) and len(torch.unique(named["daptune"]().round(decimals=5), dim=0)) == 5
    assert len(result["share_of_tower"]) == 1 and result["share_of_tower"][0] > 0
    lines = pictures.table(result).splitlines()[2:6]
    assert [line.split(" | ")[0] for line in lines] == [f"| {name}" for name in named]
