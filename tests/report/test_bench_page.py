"""The page of bench runs: its numbers are those of the results, its markup is sound, and it loads nothing."""

import json
import re
import shutil
import statistics
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from daptune.adapter.drawn import held_out_images
from daptune.classifier import load
from daptune.errors import DataError
from daptune.report.bench_features import Sources
from daptune.report.bench_page import bench_page
from daptune.report.board import harmonic
from daptune.report.runs import read_runs

from .made_up import SHOTS, line, write_run
from .reading import Elements, outside, table


@pytest.fixture(scope="module")
def rows(bench_run: Path) -> list[dict]:
    return [json.loads(text) for text in (bench_run / "results.jsonl").read_text("utf-8").splitlines()]


def accuracies(rows: list[dict], experiment: str, label: str, dataset: str, shots: int, split: str) -> list[float]:
    names = (experiment, label, dataset, shots)
    own = [r for r in rows if (r["experiment"], r["label"], r["dataset"], r["shots"]) == names]
    return [100 * r["correct"][split].count("1") / len(r["correct"][split]) for r in own]


def test_few_shot_tables(bench_report: Path, rows: list[dict]) -> None:
    for dataset in ("demo", "flowers"):
        for row in table(bench_report, f"fewshot-{dataset}"):
            if row["method"] == "zero_shot":
                continue
            for shots in SHOTS:
                name = "1 shot" if shots == 1 else f"{shots} shots"
                values = accuracies(rows, "fewshot", row["method"], dataset, shots, "test")
                assert float(row[name]) == pytest.approx(statistics.mean(values), abs=1e-4)
                assert float(row[f"{name} sd"]) == pytest.approx(statistics.stdev(values), abs=1e-4)


def test_domain_table(bench_report: Path, rows: list[dict]) -> None:
    found = table(bench_report, "domain")
    assert [row["method"] for row in found][-1] == "dapt"
    for row in found:
        means = []
        for split, column in (("test", "demo (source)"), *((t, t) for t in ("glossy", "outlines", "old"))):
            values = accuracies(rows, "domain", row["method"], "demo", 16, split)
            means.append(statistics.mean(values))
            assert float(row[column]) == pytest.approx(means[-1], abs=1e-4)
        assert float(row["mean of targets"]) == pytest.approx(statistics.mean(means[1:]), abs=1e-4)


def test_ablation_and_base_to_new_tables(bench_report: Path, rows: list[dict]) -> None:
    for row in table(bench_report, "ablation"):
        if row["data set"] == "flowers":
            own, first = (
                statistics.mean(accuracies(rows, "ablation", label, "flowers", 16, "test"))
                for label in (row["losses"], "coop_vpt")
            )
            assert float(row["accuracy"]) == pytest.approx(own, abs=1e-4)
            if row["losses"] != "coop_vpt":
                assert float(row["change"]) == pytest.approx(own - first, abs=1e-4)
                assert float(row["from"]) < float(row["change"]) < float(row["to"])
    for row in table(bench_report, "base2new"):
        if row["data set"] == "flowers":
            halves = [
                statistics.mean(accuracies(rows, "base2new", row["method"], "flowers", 16, split))
                for split in ("base", "new")
            ]
            assert [float(row["base"]), float(row["new"])] == pytest.approx(halves, abs=1e-4)
            assert float(row["H"]) == pytest.approx(100 * harmonic(*(h / 100 for h in halves)), abs=1e-4)


def test_significance_counts_every_comparison(bench_report: Path) -> None:
    found = table(bench_report, "significance-fewshot")
    assert len(found) == 3 * 3 * 3, "three others, three numbers of shots, two data sets and their mean"
    assert all(float(row["p"]) <= float(row["p, Holm"]) <= 1 for row in found)


def test_the_page_is_sound_small_and_alone(bench_report: Path) -> None:
    text = bench_report.read_text("utf-8")
    elements = Elements(text)
    assert elements.errors == []
    assert outside(text) == []
    assert len(text.encode()) < 3_000_000
    ids = [attributes["id"] for _, attributes in elements.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    anchors = [attributes["href"] for name, attributes in elements.found if name == "a"]
    assert anchors and all(anchor is not None and anchor[1:] in ids for anchor in anchors)
    used = re.findall(r'(?:href="#|url\(#)([^")]+)', text)
    assert set(used) <= set(ids)
    policy = next(a["content"] for name, a in elements.found if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and "default-src 'none'" in policy


def test_every_figure_is_a_file_of_its_own(bench_report: Path) -> None:
    files = sorted(bench_report.with_name("report-files").glob("*.svg"))
    assert len(files) == 1 + 3 + 3, "the overview, a panel for each of the others, the mean and two data sets"
    for path in files:
        root = ElementTree.fromstring(path.read_text("utf-8"))
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert "var(--" not in path.read_text("utf-8") and "prefers-color-scheme: dark" in path.read_text("utf-8")


def test_names_of_users_are_text(tmp_path: Path) -> None:
    evil = "<script>alert('x')</script>"
    rows = []
    for label in ("dapt", evil):
        for shots in (1, 4):
            rows.append(line("fewshot", label, evil, shots, 1, {"test": 0.5}))
    rows.append(line("domain", "dapt", evil, 4, 1, {"test": 0.5, evil: 0.4}) | {"plan": evil})
    page = bench_page(read_runs([write_run(tmp_path / "run", rows)]))
    text = page.to_html("files")
    elements = Elements(text)
    assert elements.errors == [] and [name for name, _ in elements.found].count("script") == 1
    assert any(evil in part for part in elements.text)
    for section in page.sections:
        for figure in section.figures:
            ElementTree.fromstring(figure.file())


def says(tmp_path: Path, skills: dict[str, float], **kinds: dict[str, float]) -> list[str]:
    rows = [line("fewshot", label, "demo", 16, 1, {"test": skill}) for label, skill in skills.items()]
    for kind, labels in kinds.items():
        rows += [line(kind, label, "demo", 16, 1, {"test": skill}) for label, skill in labels.items()]
    return list(bench_page(read_runs([write_run(tmp_path / "run", rows)])).says)


def test_it_says_who_wins_and_who_loses(tmp_path: Path) -> None:
    won = says(tmp_path / "a", {"zero_shot": 0.3, "coop": 0.4, "dapt": 0.8})[0]
    assert "points more than coop, the best of the others" in won and "excludes zero" in won
    lost = says(tmp_path / "b", {"zero_shot": 0.8, "coop": 0.4, "dapt": 0.3})[0]
    assert "points less than zero_shot, the best of the others" in lost and "excludes zero" in lost
    level = says(tmp_path / "c", {"coop": 0.5, "dapt": 0.51})[0]
    assert "contains zero" in level
    losses = says(tmp_path / "d", {"dapt": 0.5}, ablation={"coop_vpt": 0.5, "+inter": 0.6, "dapt": 0.4})
    assert any("+inter +" in line and "dapt −" in line for line in losses)


def test_another_focus(small_run: Path) -> None:
    page = bench_page(read_runs([small_run]), focus="coop")
    assert "coop classifies" in page.says[0]
    with pytest.raises(DataError, match=r"no result is labelled 'dappt'\. Did you mean 'dapt'"):
        bench_page(read_runs([small_run]), focus="dappt")


def test_a_board_without_the_focus_is_still_shown(tmp_path: Path) -> None:
    kinds = (("fewshot", "coop"), ("ablation", "dapt"))
    rows = [line(kind, label, "demo", 16, 1, {"test": 0.5}) for kind, label in kinds]
    text = bench_page(read_runs([write_run(tmp_path / "run", rows)])).to_html("files")
    assert "coop" in text and Elements(text).errors == []


def test_the_benchmark_of_the_paper_stays_below_three_megabytes(tmp_path: Path) -> None:
    """Without bits, which save the test its time and the page its table of significance: 240 rows, 100 kB."""
    datasets = tuple(f"data set {number}" for number in range(11))
    rows = []
    for label in ("zero_shot", "linear_probe", "coop", "vpt", "dapt"):
        for dataset in datasets:
            for shots in (1, 2, 4, 8, 16):
                for seed in (1, 2, 3):
                    rows.append(line("fewshot", label, dataset, shots, seed, {"test": 0.5}) | {"correct": {}})
    text = bench_page(read_runs([write_run(tmp_path / "run", rows)])).to_html("files")
    assert len(text.encode()) < 2_900_000


def test_two_sources_have_a_table_each_and_what_was_skipped_is_said(tmp_path: Path) -> None:
    rows = []
    for source, target in (("a", "x"), ("b", "y")):
        for label in ("coop", "dapt"):
            rows.append(line("crossdataset", label, source, 16, 1, {"test": 0.5, target: 0.4}))
    rows[0]["skipped"] = {"z": "it has no images"}
    page = bench_page(read_runs([write_run(tmp_path / "run", rows)]))
    section = next(section for section in page.sections if section.anchor == "crossdataset")
    heads = [table.columns[1:3] for table in section.tables]
    assert heads == [("a (source)", "x"), ("b (source)", "y")]
    assert "coop on z: it has no images" in section.to_html()
    assert sum("other data sets, after training on" in sentence for sentence in page.says) == 2


def test_maps_are_drawn_of_images_at_hand(fitted_folder: Path, tmp_path: Path) -> None:
    row = line("fewshot", "dapt", "colours", 16, 1, {"test": 0.5})
    run = write_run(tmp_path / "run", [row])
    shutil.copytree(fitted_folder / "adapter", run / "adapters" / row["key"])
    classifier = load(fitted_folder / "adapter")
    images = held_out_images(classifier.record_, fitted_folder / "pictures").train
    page = bench_page(read_runs([run]), sources=Sources(lambda _: images, lambda _: classifier.method_))
    section = next(section for section in page.sections if section.anchor == "features")
    assert [figure.name for figure in section.figures] == [
        "map-colours-texts-0", "map-colours-texts-1", "map-colours-images-0", "map-colours-images-1",
    ]  # fmt: skip
    assert "silhouette of 24 test images" in section.text

    def gone(_: object) -> None:
        raise DataError("the images of colours are not at hand.")

    page = bench_page(read_runs([run]), sources=Sources(gone, lambda _: classifier.method_))  # type: ignore[arg-type]
    section = next(section for section in page.sections if section.anchor == "features")
    assert not section.figures and "No maps of colours: the images of colours" in section.text
