"""`daptune predict` to a file: stopped and gone on with, in shards, in every format, on a cluster."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet

from daptune.cli import predict, run

from ..conftest import CLASSES


@pytest.fixture
def command(
    adapter: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """Runs `daptune predict ADAPTER PICTURES ...` in an empty folder -> exit code and what stood on stderr."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def call(*words: object, images: object = pictures) -> tuple[int, str]:
        code = run(["predict", str(adapter), str(images), "--batch-size", "4", *map(str, words)])
        return code, capsys.readouterr().err

    return call


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(name).read_text("utf-8").splitlines()]


def test_stopped_it_keeps_its_rows_and_the_same_command_goes_on(command, monkeypatch: pytest.MonkeyPatch) -> None:
    assert command("--out", "whole.jsonl") == (0, "")
    seen: list[int] = []

    def stopped(*args: Any, **kwargs: Any):
        for group in whole(*args, **kwargs):
            yield group
            seen.append(len(group))
            if len(seen) == 2:
                raise KeyboardInterrupt

    whole = predict.predict_rows
    with monkeypatch.context() as patch:
        patch.setattr(predict, "predict_rows", stopped)
        code, said = command("--out", "rows.jsonl")
    assert code == 130 and "8 rows are in rows.jsonl.partial; run the same command to resume" in said
    assert not Path("rows.jsonl").exists()

    code, said = command("--out", "rows.jsonl", "--top-k", "2")
    assert code == 2 and "holds a run with another top-k (1 there, 2 here)" in said
    code, said = command("--out", "rows.jsonl", images=".")
    assert code == 2
    assert command("--out", "rows.jsonl") == (0, "daptune: resuming after 8 existing rows\n")
    assert rows("rows.jsonl") == rows("whole.jsonl") and len(rows("rows.jsonl")) == 30
    assert not Path("rows.jsonl.partial").exists()


def test_shards_and_tables_give_the_same_rows(command, pictures: Path) -> None:
    command("--out", "whole.jsonl", "--top-k", "2")
    whole = rows("whole.jsonl")
    for part in (1, 2, 3):
        assert command("--out", f"{part}.jsonl", "--top-k", "2", "--shard", f"{part}/3") == (0, "")
        found = rows(f"{part}.jsonl")
        assert [row["file"] for row in found] == [row["file"] for row in whole[part - 1 :: 3]]
        for row, other in zip(found, whole[part - 1 :: 3], strict=True):
            assert row["label"] == other["label"] and abs(row["probability"] - other["probability"]) < 1e-5
    assert command("--out", "rows.parquet", "--top-k", "2") == (0, "")
    table = parquet.read_table("rows.parquet").to_pylist()
    assert [(row["file"], row["label"], row["label_2"]) for row in table] == [
        (row["file"], row["label"], row["top"][1]["label"]) for row in whole
    ]
    names = [str(Path(row["file"]).relative_to(pictures)) for row in whole]
    cells = [{"bytes": (pictures / name).read_bytes(), "path": name} for name in names]
    parquet.write_table(pyarrow.table({"image": [*cells, {"bytes": b"no", "path": None}]}), "images.parquet")
    assert command("--out", "again.parquet", images="images.parquet") == (0, "")
    again = parquet.read_table("again.parquet").to_pylist()
    assert [(row["file"], row["label"]) for row in again[:-1]] == [
        (name, row["label"]) for name, row in zip(names, whole, strict=True)
    ]
    assert again[-1]["file"] == "images.parquet:31" and "not an image" in again[-1]["error"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--shard", "4/3"), "--shard must be K/N with K from 1 to N"),
        (("--shard", "40/50"), "no image files in part 40/50 of"),
        (("--format", "parquet"), "--format parquet needs a file to write to"),
        (("--json", "--format", "parquet"), "--json and --format parquet exclude each other"),
        (("--out", "."), "is a folder; name a file in it"),
        (("--executor", "spark"), '"spark"'),
    ],
)
def test_bad_options_are_one_line(command, words: tuple[str, ...], message: str) -> None:
    code, said = command(*words)
    assert code == 2 and message in said and said.count("\n") == 1
    assert not list(Path().iterdir())


def test_what_cannot_be_read_has_rows_even_if_it_is_all(command) -> None:
    code, said = command("--out", "rows.csv", images="gone.png")
    assert code == 2 and "none of the 1 files could be read" in said
    assert Path("rows.csv").read_text().startswith("file,label,probability,error\ngone.png,,,")


def test_scaled_decoding_is_near_and_only_when_asked(command, tmp_path: Path) -> None:
    """A JPEG of 32 x 4 = 128 pixels and more is decoded at a half or less for the 32 pixels of the made-up tower."""
    noise = np.random.default_rng(0).integers(0, 256, (25, 32, 3)).astype(np.uint8)
    Image.fromarray(noise).resize((512, 400)).save(tmp_path / "noise.jpg", quality=95)
    command("--out", "exact.jsonl", images=tmp_path / "noise.jpg")
    command("--out", "scaled.jsonl", "--scaled-decoding", images=tmp_path / "noise.jpg")
    (exact,), (scaled,) = rows("exact.jsonl"), rows("scaled.jsonl")
    assert exact["label"] == scaled["label"] and 0 < abs(exact["probability"] - scaled["probability"]) < 0.02


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of ray's own
def test_a_ray_cluster_gives_the_same_rows(command, nodes: Any) -> None:
    command("--out", "whole.csv")
    assert command("--out", "rows.csv", "--executor", "ray")[0] == 0
    exact, found = (Path(name).read_text().splitlines() for name in ("whole.csv", "rows.csv"))
    assert len(exact) == len(found) == 31
    for one, other in zip(exact[1:], found[1:], strict=True):
        (file, label, value, _), (same_file, same_label, same_value, _) = one.split(","), other.split(",")
        assert (file, label) == (same_file, same_label) and abs(float(value) - float(same_value)) < 1e-5
        assert label in CLASSES
