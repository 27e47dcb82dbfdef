"""One training -> rows: what stands in them agrees with measuring by hand."""

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from daptune.adapter.store import load_adapter
from daptune.bench import datasets
from daptune.bench.job import prepare, run_jobs
from daptune.bench.measure import dispersion
from daptune.bench.plan import Job
from daptune.classifier import FewShotClassifier
from daptune.clip.backbone import load_backbone
from daptune.data.fewshot import sample_fewshot
from daptune.data.sources import read_source
from daptune.data.table import ImageTable, Splits
from daptune.evaluate import measure

TRAIN = {"epochs": 4, "batch_size": 6, "lr": 0.05}
OPTIONS = {"text_tokens": 2, "vision_tokens": 2}


@pytest.fixture
def job(made_up_backbone: str, pictures: Path) -> Job:
    for split, numbers in (("test", "789"), ("val", "56"), ("train", "01234")):
        for name in ("blue_thing", "green thing", "red"):
            for number in numbers:
                target = pictures / split / name / f"{number}.png"
                target.parent.mkdir(parents=True, exist_ok=True)
                (pictures / name / f"{number}.png").rename(target)
    for name in ("blue_thing", "green thing", "red"):
        (pictures / name).rmdir()
    return Job("mine", "fewshot", "dapt", "dapt", str(pictures), 4, 1, made_up_backbone, "fp32", None, OPTIONS, TRAIN)


def test_a_row_tells_everything(job: Job, tmp_path: Path) -> None:
    (outcome,) = run_jobs([job], tmp_path)
    row = outcome.result.to_json()
    assert row["status"] == "done" and row["key"] == job.key and (row["images"], row["epochs"]) == (12, 4)
    assert row["method_config"]["text_tokens"] == 2 and row["train_config"]["lr"] == 0.05 and row["options"] == OPTIONS
    assert row["backbone"]["name"] == job.backbone and len(row["backbone"]["sha256"]) == 64
    assert len(row["split_hash"]) == 64 and row["versions"]["torch"]
    assert row["class_names"] == ["blue_thing", "green thing", "red"]
    assert row["peak_bytes"] > 10_000_000 and row["seconds"] > 0 and row["learned"] == 2 * 64 * 2
    assert set(row["accuracy"]) == set(row["correct"]) == {"test", "val"}
    for split, count in (("test", 9), ("val", 6)):
        assert len(row["correct"][split]) == count
        assert row["accuracy"][split] == row["correct"][split].count("1") / count

    folder = tmp_path / "adapter"
    folder.mkdir()
    for name, content in outcome.adapter.items():
        (folder / name).write_bytes(content)
    method = load_adapter(folder).method
    splits = datasets.read_dataset(job.dataset, tmp_path)
    assert splits.test is not None
    assert "".join("01"[int(hit)] for hit in measure(method, splits.test).correct) == row["correct"]["test"]
    drawn = sample_fewshot(splits.train, job.shots, job.seed).train
    assert row["dispersion"] == pytest.approx(dispersion(method, drawn, splits.test))


def test_the_selected_epoch_is_that_of_a_run_that_selects(job: Job, tmp_path: Path) -> None:
    row = run_jobs([job], tmp_path)[0].result.to_json()
    splits = datasets.read_dataset(job.dataset, tmp_path)
    classifier = FewShotClassifier(
        "dapt", load_backbone(job.backbone, precision="fp32"), shots=4, seed=1, method_options=OPTIONS,
        train_options=TRAIN | {"select": "best_val"},
    ).fit(splits)  # fmt: skip
    assert splits.test is not None and splits.val is not None
    assert row["selected"] == {
        "epoch": classifier.history_.best_epoch,
        "test": measure(classifier.method_, splits.test).correct.mean(),
        "val": measure(classifier.method_, splits.val).correct.mean(),
    }


def test_jobs_of_one_training_have_a_row_each(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    splits = datasets.read_dataset(job.dataset, tmp_path)
    assert splits.test is not None
    few = splits.test.subset(range(6))  # two classes, under names that were learned
    part = Splits(few.subset([]), test=replace(few, class_names=few.class_names[:2]))
    new = Splits(few.subset([]), test=replace(splits.test, class_names=("x", "y", "z")))
    sources = {"few": part, "new": new, job.dataset: splits}
    monkeypatch.setattr("daptune.bench.job.read_dataset", lambda name, root: sources[name])
    other = replace(job, experiment="domain", targets=("few", "new"))
    first, second = (outcome.result.to_json() for outcome in run_jobs([job, other], tmp_path))
    assert (first["key"], second["key"]) == (job.key, other.key)
    assert set(first["accuracy"]) == {"test", "val"} and set(second["accuracy"]) == {"test", "val", "few", "new"}
    assert first["correct"]["test"] == second["correct"]["test"] and len(second["correct"]["few"]) == 6
    own = [a == "1" for a in second["correct"]["test"][:6]]
    assert all(b == "1" for a, b in zip(own, second["correct"]["few"], strict=True) if a)  # fewer answers: no worse

    whole = run_jobs([replace(other, targets=("few",), among="all")], tmp_path)[0].result
    assert whole.correct["few"] == first["correct"]["test"][:6]  # the same images, the same answers

    probe = replace(other, method="linear_probe", label="probe", options={}, train={})
    row = run_jobs([probe], tmp_path)[0].result.to_json()
    assert set(row["accuracy"]) == {"test", "val", "few"} and "new class names" in row["skipped"]["new"]
    assert row["dispersion"] is None and row["selected"] is None and row["epochs"] == 0


def test_each_adapter_of_one_training_answers_as_its_row_says(job: Job, tmp_path: Path) -> None:
    """With and without the ensemble, the record describes the tensors beside it."""
    test = datasets.read_dataset(job.dataset, tmp_path).test
    assert test is not None
    jobs = [job, replace(job, label="with", ensemble="auto")]
    for number, outcome in enumerate(run_jobs(jobs, tmp_path)):
        (folder := tmp_path / str(number)).mkdir()
        for name, content in outcome.adapter.items():
            (folder / name).write_bytes(content)
        adapter = load_adapter(folder)
        assert bool(adapter.record.ensemble) == (adapter.method.ensemble is not None) == (number == 1)
        found = measure(adapter.method, test).correct
        assert "".join("01"[int(hit)] for hit in found) == outcome.result.correct["test"]


def test_base_to_new_learns_half_of_the_classes(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def base_and_new(splits: Splits) -> tuple[Splits, Splits]:
        """The first two classes and the third; as `daptune.data.benchmarks` does."""
        return _only(splits, [0, 1]), _only(splits, [2])

    monkeypatch.setattr("daptune.bench.job.base_and_new", base_and_new)
    whole = run_jobs([job], tmp_path)[0].result.to_json()
    row = run_jobs([replace(job, experiment="base2new")], tmp_path)[0].result.to_json()
    assert row["status"] == "done", row
    assert row["class_names"] == ["blue_thing", "green thing"] and row["images"] == 8 == whole["images"] * 2 // 3
    assert set(row["accuracy"]) == {"test", "val", "base", "new"} and row["accuracy"]["base"] == row["accuracy"]["test"]
    assert len(row["correct"]["base"]) == 6 and row["correct"]["new"] == "111"  # one class only: it is always right


def coops_draw(train: list[int], val: list[int], shots: int, seed: int) -> list[list[int]]:
    """Rows that Dassl's `generate_fewshot_dataset` draws from lists of labels, on the seeded global generator."""
    state = random.getstate()
    random.seed(seed)
    drawn = []
    for labels, most in ((train, shots), (val, min(shots, 4))):
        members: dict[int, list[int]] = {}
        for row, label in enumerate(labels):
            members.setdefault(label, []).append(row)
        drawn.append(
            [row for rows in members.values() for row in (random.sample(rows, most) if len(rows) >= most else rows)]
        )
    random.setstate(state)
    return drawn


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("shots", [1, 3, 8])
def test_base_images_are_those_of_the_draw_from_all_classes(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shots: int, seed: int
) -> None:
    """Five classes of 9, 4, 12, 7 and 11 images; the list begins with the last ones, which are no base classes."""
    counts = {"train": (9, 4, 12, 7, 11), "val": (5, 1, 3, 6, 2), "test": (3, 1, 2, 4, 5)}
    labels, whole = {}, {}
    for part, own in counts.items():
        labels[part] = [label for turn in range(12) for label in (4, 2, 0, 3, 1) if turn < own[label]]
        paths = tuple(Path(f"{part}{row}") for row in range(sum(own)))
        whole[part] = ImageTable(paths, np.array(labels[part]), tuple("abcde"))
    monkeypatch.setattr("daptune.bench.job.read_dataset", lambda name, root: Splits.of(whole))
    _, learned, measured = prepare(replace(job, experiment="base2new", shots=shots, seed=seed), tmp_path)
    for part, rows in zip(("train", "val"), coops_draw(labels["train"], labels["val"], shots, seed), strict=True):
        expected = {f"{part}{row}" for row in rows if labels[part][row] in (0, 1, 2)}
        table = learned.present()[part]
        assert {str(image) for image in table.images} == expected and len(table) == len(expected)
        assert table.class_names == ("a", "b", "c")
        assert [labels[part][int(str(image)[len(part) :])] for image in table.images] == table.labels.tolist()
    assert measured.test is not None and measured.test.counts().tolist() == [3, 1, 2] and learned.test is None
    again = sample_fewshot(learned.train, shots, seed, val=learned.val)  # as `fit` will
    assert {*again.train.images} == {*learned.train.images} and again.val is not None and learned.val is not None
    assert {*again.val.images} == {*learned.val.images}


def test_several_labels_are_measured_by_map(made_up_backbone: str, stripes_table: Path, tmp_path: Path) -> None:
    job = Job(
        "mine", "fewshot", "dapt", "dapt", str(stripes_table), 4, 1, made_up_backbone, "fp32", None, OPTIONS, TRAIN,
        multi_label=True,
    )  # fmt: skip
    row = run_jobs([job], tmp_path)[0].result.to_json()
    assert row["status"] == "done", row
    splits = read_source(stripes_table, multi_label=True)
    fitted = FewShotClassifier(
        "dapt", made_up_backbone, shots=4, seed=1, method_options=OPTIONS, train_options=TRAIN, calibrate="none",
        multi_label=True, precision="fp32",
    ).fit(splits)  # fmt: skip
    for name, table in (("test", splits.test), ("val", splits.val)):
        assert table is not None
        p, there = fitted.predict_proba(list(table.images)), table.labels.any(axis=0)
        expected = average_precision_score(table.labels[:, there], p[:, there], average="macro")
        assert row["mean_average_precision"][name] == pytest.approx(expected)
        assert row["nll"][name] == pytest.approx(-np.log(np.where(table.labels, p, 1 - p)).mean(), rel=1e-4)
    assert row["accuracy"] == row["correct"] == {} and row["dispersion"] is None and "ece" not in row
    assert set(row["selected"]) == {"epoch", "test", "val"} and 0 < row["selected"]["test"] <= 1
    assert row["images"] == len(fitted.train_table_) and row["class_names"] == list(splits.train.class_names)
    stepped = run_jobs([replace(job, method="coop", options={}, train={"steps": 6, "batch_size": 4})], tmp_path)
    images, epochs = stepped[0].result.images, stepped[0].result.epochs
    assert images is not None and epochs == max(1, round(6 / (images // 4)))
    none = tmp_path / "none.csv"
    lines = stripes_table.read_text("utf-8").splitlines()
    kept = [lines[0]] + [f"{stripes_table.parent}/{line}" for line in lines[1:] if not line.endswith("test")]
    bare = [f"{stripes_table.parent}/{line.split(',')[0]},,test" for line in lines if line.endswith("test")]
    none.write_text("\n".join(kept + bare))
    failed = run_jobs([replace(job, dataset=str(none))], tmp_path)[0].result
    assert failed.status == "failed" and "no class is there on the test images" in failed.error


def _only(splits: Splits, classes: list[int]) -> Splits:
    tables = {}
    for name, table in splits.present().items():
        part = table.subset(np.flatnonzero(np.isin(table.labels, classes)))
        names = tuple(table.class_names[c] for c in classes)
        tables[name] = replace(part, labels=np.searchsorted(classes, part.labels), class_names=names)
    return Splits.of(tables)


def test_test_images_are_left_alone_when_asked(job: Job, tmp_path: Path) -> None:
    whole, row = (run_jobs([one], tmp_path)[0].result for one in (job, replace(job, score="val")))
    assert row.key != whole.key and row.dispersion is None
    assert (row.accuracy, row.correct) == ({"val": whole.accuracy["val"]}, {"val": whole.correct["val"]})
    assert row.selected is not None and set(row.selected) == {"epoch", "val"}


def test_a_failure_is_a_row(job: Job, tmp_path: Path) -> None:
    broken = replace(job, backbone="nonsense")
    (outcome,) = run_jobs([broken], tmp_path)
    row = outcome.result
    assert row.status == "failed" and "nonsense" in row.error and not outcome.adapter
    assert row.key == broken.key and "\n" not in row.error
