"""`daptune fit`: what it prints, measures and saves, and how it goes on."""

import json
import os
import shutil
from collections import Counter
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from daptune import classifier as classifier_module
from daptune import suitability
from daptune.classifier import FewShotClassifier
from daptune.cli.fit import below_zero_shot, make_classifier
from daptune.cli.options import FitOptions
from daptune.data import images, sources
from daptune.measured import Measured
from daptune.methods import METHODS
from daptune.methods.ensemble import LEARNED
from daptune.train import TrainConfig

from ..conftest import CLASSES, COLOURS, save_picture
from .conftest import Command


def of_accuracy(share: float) -> Measured:
    """Answers on 20 images of the first class, of which so many are right."""
    right = np.arange(20) < round(20 * share)
    return Measured(np.where(right[:, None], [1, 0, 0], [0, 1, 0]).astype(np.float32), np.zeros(20, np.int64))


def test_fit_prints_a_card_tables_and_what_to_type_next(fit: Command, pictures: Path) -> None:
    done = fit(pictures, "--out", "my adapter")
    assert done.code == 0, done.err
    for words in ("Distribution-Aware", "learns", "fingerprint", "held out", "zero_shot", "dapt", "macro-F1", "worst"):
        assert words in done.out
    assert "daptune predict 'my adapter' PICTURES" in done.out
    assert {path.name for path in Path("my adapter").iterdir()} == {"adapter.json", "adapter.safetensors", "README.md"}
    assert sorted(path.name for path in Path("my adapter.run").iterdir()) == ["finished.json", "history.jsonl"]
    record = json.loads(Path("my adapter/adapter.json").read_text())
    held_out = record["metrics"]["held_out"]
    assert held_out["images"] == 6 and 0 <= held_out["dapt"]["accuracy"] <= 1
    assert set(held_out["zero_shot"]["per_class"]) == set(CLASSES)
    assert fit(pictures, "--out", "my adapter").code == 0, "a second fit replaces the adapter"


def test_fit_as_json(fit: Command, pictures: Path) -> None:
    done = fit(pictures, "--json", "--method", "coop", "--template", "a {} picture.")
    assert done.code == 0, done.err
    assert done.json["adapter"] == "adapter"
    assert done.json["bytes"] == sum(path.stat().st_size for path in Path("adapter").iterdir())
    assert set(done.json["held_out"]) == {"split", "images", "zero_shot", "coop alone", "coop"}
    assert done.json["ensemble"] == json.loads(Path("adapter/adapter.json").read_text())["ensemble"]
    assert set(done.json["ensemble"]) == {"a", "factors", "templates", "similarity", "truth"}
    assert done.json["card"]["prompt"] == "[2 learned tokens] <class>."
    lines = done.err.splitlines()
    told = [line.removeprefix("daptune: warning: ") for line in lines if not line.startswith("daptune: coop ")]
    assert len(lines) > len(told) > 0 and set(told) <= set(done.json["warnings"])
    assert done.json["warning"] == done.json["warnings"][0]


def test_a_backbone_that_does_badly_is_named_by_fit_eval_and_report(
    fit: Command, daptune: Command, pictures: Path, made_up_backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With limits that every backbone falls short of; the true ones are tested in tests/test_suitability.py."""
    monkeypatch.setattr(suitability, "EXPECTED", 0.9999)
    monkeypatch.setattr(suitability, "GOOD", 2.0)
    done = fit(pictures)
    held_out = json.loads(Path("adapter/adapter.json").read_text())["metrics"]["held_out"]
    first = (
        f"the backbone {made_up_backbone} does badly on these images: by the class names alone it is right on "
        f"{100 * held_out['zero_shot']['accuracy']:.1f} % of 6, "
    )
    more = f" See where it fails: daptune report adapter --images {pictures}"
    line = done.err.splitlines()[-1]
    assert line.startswith(f"daptune: warning: {first}") and line.endswith(more), done.err
    assert fit(pictures, "--json").json["advice"] == line.removeprefix("daptune: warning: ")
    done = daptune("eval", "adapter", pictures)
    assert " % of 30, " in done.err.splitlines()[-1] and done.err.splitlines()[-1].endswith(more)
    assert " % of 30, " in daptune("eval", "adapter", pictures, "--json").json["advice"]
    for words in ((), ("--images", pictures)):
        said = daptune("report", "adapter", *words, "--json").json["says"]
        assert [text for text in said if text.startswith("T" + first[1:])], said
    advice = fit(pictures, "--holdout", "0", "--json").json["advice"]
    assert " % of 6, " in advice, "two training images of each class"
    monkeypatch.setattr(suitability, "EXPECTED", 0.0)
    assert (
        fit(pictures, "--json").json["advice"] is daptune("eval", "adapter", pictures, "--json").json["advice"] is None
    )


def test_fit_says_when_the_tuned_method_is_below_zero_shot(
    fit: Command, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The figures are made up, for on made-up pictures chance decides them."""
    figures = {"zero_shot": 0.5, "dapt": 0.25}

    def measured(baseline: Any, method: Any, *_: Any, **__: Any) -> dict[str, Measured]:
        return {one.name: of_accuracy(figures[one.name]) for one in (baseline, method)}

    monkeypatch.setattr("daptune.cli.fit.measure_beside", measured)
    done = fit(pictures, "--ensemble", "none")
    line = done.err.splitlines()[-1]
    assert done.code == 0 and line == (
        "daptune: warning: dapt reaches 25.0 % on the held-out images, zero_shot 50.0 %: zero-shot CLIP is better "
        "here. Try: more images of each class; --ensemble auto; --method auto; "
        "a gentler start (--set context_init='a photo of a' --lr 0.001)."
    )
    assert done.out.index("macro-F1") < done.out.index("time to learn")
    found = fit(pictures, "--json", "--ensemble", "none")
    assert found.json["warning"] == line.removeprefix("daptune: warning: ") and "zero_shot" not in found.err
    warning = fit(pictures, "--json", "--preset", "paper", "--set", "context_init=a photo of a").json["warning"]
    assert warning.endswith("Try: more images of each class; no --preset paper; --method auto.")
    warning = fit(pictures, "--json").json["warning"]  # the start matters little for an ensemble
    assert warning.endswith("Try: more images of each class; --method auto.")
    figures["dapt"] = 0.5
    assert not any("zero_shot" in line for line in fit(pictures, "--json").json["warnings"])
    figures["zero_shot"] = 0.1
    assert "zero_shot" not in fit(pictures).err


def test_fit_with_and_without_an_ensemble(fit: Command, daptune: Command, pictures: Path) -> None:
    """`fit` prints the weights of its sources and measures the learned prompts alone beside it; `show` prints them."""
    done = fit(pictures, "--template", "a {} picture.", "--template", "{}!")
    assert done.code == 0 and "dapt alone" in done.out
    mix = daptune("show", "adapter", "--json").json["record"]["ensemble"]
    assert mix["templates"] == ["a {} picture.", "{}!"] and min(mix["a"]) > 0
    text, support, learned = (f"{weight:.2f}" for weight in mix["a"])
    words = f"hand-written prompts {text}, training images {support}, learned prompts {learned}"
    for shown in (done.out, daptune("show", "adapter").out):
        assert words in " ".join(shown.split())
    for options in (("--ensemble", "none"), ("--preset", "paper")):
        done = fit(pictures, *options)
        assert done.code == 0 and "alone" not in done.out and "hand-written" not in done.out
        shown = daptune("show", "adapter")
        assert ["ensemble", "none"] in [line.split() for line in shown.out.splitlines()]
        assert daptune("show", "adapter", "--json").json["record"]["ensemble"] == {}
    for options, message in (
        (("--ensemble", "all"), "auto"),
        (("--template", "a picture"), "templates"),
    ):
        done = fit(pictures, *options)
        assert done.code == 2 and message in done.err and len(done.err.splitlines()) == 1


def test_fit_with_and_without_a_temperature(fit: Command, daptune: Command, tmp_path: Path) -> None:
    """Two of five validation images of a class look like another; two are drawn, as many as training images."""
    for split, count in (("train", 4), ("val", 5), ("test", 3)):
        for place, name in enumerate(CLASSES):
            for number in range(count):
                colour = COLOURS[CLASSES[(place + (split == "val" and number > 2)) % 3]]
                save_picture(tmp_path / "data" / split / name / f"{number}.png", colour, 10 * place + number)
    words = (tmp_path / "data", "--train", "weight_decay=0", "--lr", "0.1", "--ensemble", "none", "--json")
    for options in (("--calibrate", "none"), ("--preset", "paper")):
        kept = fit(words[0], *options, *(("--json",) if "paper" in options else words[1:]))
        assert kept.code == 0, kept.err
        assert "calibration" not in kept.json
        assert daptune("show", "adapter", "--json").json["record"]["temperature"] == 1
    done = fit(*words).json
    record = daptune("show", "adapter", "--json").json["record"]
    assert done["calibration"] == record["metrics"]["calibration"] and done["calibration"]["images"] == 6
    assert record["temperature"] == done["calibration"]["temperature"]
    shown = fit(*words[:-1])
    line = next(line for line in shown.out.splitlines() if line.startswith("temperature"))
    assert "negative log-likelihood" in line and "on 6 validation images" in line
    measured = daptune("eval", "adapter", words[0], "--json").json  # at the temperature, as `fit` measured
    assert measured["nll"] == pytest.approx(done["held_out"]["dapt"]["nll"], abs=1e-4)
    done = fit(words[0], "--calibrate", "yes")
    assert done.code == 2 and "auto" in done.err and len(done.err.splitlines()) == 1


def test_auto_is_not_the_advice_for_itself(fitted: FewShotClassifier) -> None:
    low, high = of_accuracy(0.2), of_accuracy(0.4)
    classifier = FewShotClassifier("lp_pp")
    classifier.method_ = METHODS["lp_pp"](fitted.backbone_, CLASSES)
    warning = below_zero_shot(classifier, {"zero_shot": high, "lp_pp": low})
    assert warning is not None and warning.endswith("--preset paper; --method auto.")
    classifier.method = "auto"
    warning = below_zero_shot(classifier, {"zero_shot": high, "lp_pp": low})
    assert warning is not None and warning.endswith("--method zero_shot.")
    assert below_zero_shot(classifier, {"zero_shot": low, "lp_pp": low}) is None
    assert below_zero_shot(classifier, {"lp_pp": low}) is None
    classifier.method_ = METHODS["zero_shot"](fitted.backbone_, CLASSES)
    assert below_zero_shot(classifier, {"zero_shot": low}) is None


def test_fit_from_an_adapter(fit: Command, daptune: Command, pictures: Path, adapter: Path) -> None:
    words = ("--method", "coop_vpt", "--set", "text_tokens=4", "--set", "vision_tokens=4", "--from", adapter)
    (pictures / "red").rename(pictures / "something else")
    assert fit(pictures, *words).code == 0
    record = daptune("show", "adapter", "--json").json["record"]
    assert record["data"]["started_from"] == daptune("show", adapter, "--json").json["record"]["tensors_sha256"]
    assert "something else" in record["class_names"]


def test_fit_measures_on_the_test_split(fit: Command, tmp_path: Path) -> None:
    for split, count in (("train", 3), ("test", 2)):
        for place, name in enumerate(CLASSES):
            for number in range(count):
                save_picture(tmp_path / "data" / split / name / f"{number}.png", COLOURS[name], place + number)
    done = fit(tmp_path / "data", "--json")
    assert done.json["held_out"]["split"] == "test split"
    assert done.json["held_out"]["images"] == 6


def test_fit_without_images_to_hold_out(fit: Command, tmp_path: Path) -> None:
    for place, name in enumerate(CLASSES):
        save_picture(tmp_path / "data" / name / "0.png", COLOURS[name], place)
    done = fit(tmp_path / "data")
    assert done.code == 0
    assert "no hold-out set, so nothing was evaluated" in done.err
    assert "fewer than 2 images, all used" in done.err
    said = " ".join(done.out.split())
    assert f"training images {1 - LEARNED:.2f}, learned prompts {LEARNED:.2f} (the last two are fixed: one" in said


def test_fit_of_methods_without_training(fit: Command, daptune: Command, pictures: Path, made_up_backbone: str) -> None:
    for method in ("zero_shot", "linear_probe"):
        common = ("--backbone", made_up_backbone, "--method", method, "--out", method)
        done = daptune("fit", pictures, *common, "--shots", "all")
        assert done.code == 0, done.err
        assert "nothing by gradient" in done.out
        assert daptune("eval", method, pictures).code == 0


def test_unreadable_files_are_listed_together(fit: Command, pictures: Path) -> None:
    (pictures / "red" / "0.png").write_bytes(b"no image")
    (pictures / "red" / "1.png").write_bytes((pictures / "red" / "2.png").read_bytes()[:300])
    (pictures / "red" / "notes.docx").write_bytes(b"text")
    done = fit(pictures)
    assert done.code == 0
    assert "2 of 30 images cannot be read" in done.err
    assert "0.png" in done.err and "1.png" in done.err
    assert "left out 1 files that are no images: notes.docx" in done.err


def test_an_interrupted_fit_says_how_to_go_on_and_ends_in_the_same_tensors(
    fit: Command, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fit(pictures, "--out", "whole").code == 0
    from daptune.train.run import Run

    end_step = Run.end_step

    def stop_at_two(self: Run) -> None:
        if self.total_steps == 1:
            os.kill(os.getpid(), 2)
        end_step(self)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "end_step", stop_at_two)
        done = fit(pictures, "--out", "part")
    assert done.code == 130
    assert done.err.splitlines()[-1].startswith("daptune: Training was stopped after step")
    assert "--out part --resume" in done.err
    assert not Path("part").exists()
    done = fit(pictures, "--out", "part")
    assert done.code == 2 and "already holds a run" in done.err and "--resume" in done.err
    assert fit(pictures, "--out", "part", "--resume").code == 0
    whole, part = (Path(name, "adapter.safetensors").read_bytes() for name in ("whole", "part"))
    assert whole == part


def test_names_in_any_script_work(fit: Command, daptune: Command, tmp_path: Path) -> None:
    for place, name in enumerate(("猫", "Собака", "ñandú", "🦉")):
        for number in range(3):
            save_picture(tmp_path / "data" / name / f"{number}.png", (60 * place, 90, 20), number)
    assert fit(tmp_path / "data").code == 0
    found = daptune("predict", "adapter", tmp_path / "data")
    assert {row["label"] for row in found.rows} <= {"猫", "Собака", "ñandú", "🦉"}


def test_a_full_disk_loses_nothing(
    fit: Command, pictures: Path, monkeypatch: pytest.MonkeyPatch, adapter: Path
) -> None:
    shutil.copytree(adapter, "adapter")
    before = Path("adapter/adapter.json").read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("daptune.files.os.fsync", full)
        done = fit(pictures)
    assert done.code == 2 and "disk" in done.err
    assert Path("adapter/adapter.json").read_bytes() == before


def test_each_image_is_decoded_once_and_the_source_read_once(
    fit: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unbalanced, one file damaged: what is checked, drawn, learned from and measured on is decoded once for all."""
    for place, (name, count) in enumerate(zip(CLASSES, (9, 3, 6), strict=True)):
        for number in range(count):
            save_picture(tmp_path / "data" / name / f"{number}.png", COLOURS[name], 10 * place + number)
    (tmp_path / "data" / "red" / "2.png").write_bytes(b"no image")
    decoded, read = Counter[Path](), Counter[Path]()
    decode, read_folder = images.decode, sources.read_folder

    def counted(source: Any, **options: Any) -> Any:
        decoded[source] += 1
        return decode(source, **options)

    def counted_read(folder: Path, *rest: Any) -> Any:
        read[folder] += 1
        return read_folder(folder, *rest)

    resolved, recorded = Counter[str](), Counter[str]()
    make_record = classifier_module.make_record

    def counted_record(*words: Any, **options: Any) -> Any:
        recorded["record"] += 1
        return make_record(*words, **options)

    def counted_settings(self: FewShotClassifier) -> Any:
        resolved["settings"] += 1
        return settings(self)

    settings = FewShotClassifier.settings
    monkeypatch.setattr(images, "decode", counted)
    monkeypatch.setattr(sources, "read_folder", counted_read)
    monkeypatch.setattr(classifier_module, "make_record", counted_record)
    monkeypatch.setattr(FewShotClassifier, "settings", counted_settings)
    done = fit(tmp_path / "data", "--json")
    assert done.code == 0, done.err
    assert "1 of 18 images cannot be read" in done.err
    assert done.json["held_out"]["images"] == 3
    assert decoded == Counter(dict.fromkeys((tmp_path / "data").glob("*/*.png"), 1))
    assert list(read.values()) == list(recorded.values()) == list(resolved.values()) == [1]


FIELDS = {field.name for field in fields(TrainConfig)}
GIVEN = {
    "epochs": "3", "steps": "none", "text_steps": "2", "text_views": "1", "sampling": "balanced", "epoch_shots": "3",
    "batch_size": "5", "min_crop": "0.9", "flip": "0.25", "augment_on": "workers", "views": "2",
    "accumulate": "2", "optimizer": "sgd", "lr": "0.003", "weight_decay": "0.02", "momentum": "0.5", "eps": "1e-7",
    "schedule": "constant", "warmup_epochs": "0.5", "warmup_lr": "2e-5", "clip_norm": "1.5", "seed": "9",
    "select": "last", "patience": "none", "memory": "low", "compile": "no", "checkpoint_seconds": "30",
}  # fmt: skip


def test_every_field_of_the_training_can_be_given(fit: Command, pictures: Path) -> None:
    assert set(GIVEN) == FIELDS
    words = [word for name, value in GIVEN.items() for word in ("--train", f"{name.replace('_', '-')}={value}")]
    options = FitOptions(train_options=tuple(word for word in words if word != "--train"))
    config = make_classifier(options).settings()[2]
    for name, value in GIVEN.items():
        expected = {"none": None, "no": False}.get(value, value)
        found = getattr(config, name)
        assert found == (expected if expected is None or found is False else type(found)(expected)), name
    done = fit(
        pictures,
        *(word for pair in zip(words[::2], words[1::2], strict=True) if pair[1] != "epochs=3" for word in pair),
    )
    assert done.code == 0, done.err
    config = json.loads(Path("adapter/adapter.json").read_text())["train_config"]
    assert (config["weight_decay"], config["clip_norm"], config["schedule"]) == (0.02, 1.5, "constant")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--train", "weigth_decay=1"], "training has no option 'weigth_decay'. Did you mean 'weight_decay'?"),
        (["--train", "clip_norm"], "--train expects name=value"),
        (["--train", "clip_norm=much"], "clip_norm: expected a finite number or none, found 'much'."),
        (["--train", "clip_norm=-1"], "clip_norm must be a number above 0"),
        (["--train", "schedule=cosin"], "Did you mean 'cosine'?"),
        (["--train", "epochs=3"], "--train epochs and --epochs set the same; leave one of them out"),
        (["--seed", "2", "--train", "seed=3"], "--train seed and --seed set the same"),
        (["--min-crop", "0.8", "--train", "min-crop=0.8"], "--train min_crop and --min-crop set the same"),
        (["--train", "patience=3"], "patience=3 needs select='best_val'"),
    ],
)  # fmt: skip
def test_fields_of_the_training_are_checked(words: list[str], message: str, fit: Command, pictures: Path) -> None:
    done = fit(pictures, *words)
    assert done.code == 2 and message in done.err and done.err.count("\n") == 1, done.err
    assert not Path("adapter").exists()


def test_all_images_count_and_those_left_out_are_told(daptune: Command, pictures: Path, made_up_backbone: str) -> None:
    """Of ten of each class two are held out."""
    common = ("--backbone", made_up_backbone, "--method", "coop", "--epochs", "2", "--set", "text_tokens=2")
    done = daptune("fit", pictures, *common)
    assert done.code == 0 and "24 to learn from, 8 per class" in done.out and "left out" not in done.out
    assert "all images, 24" in daptune("show", "adapter").out
    assert "| images per class | all, 24 images |" in Path("adapter/README.md").read_text()
    done = daptune("fit", pictures, *common, "--shots", "3", "--json")
    assert done.json["card"]["left out"] == "15 of 24 training images; --shots all learns from them too"
    assert json.loads(Path("adapter/adapter.json").read_text())["shots"] == 3


def test_uneven_classes_are_told_to_a_probe(daptune: Command, pictures: Path, made_up_backbone: str) -> None:
    common = ("--backbone", made_up_backbone, "--method", "linear_probe", "--holdout", "0", "--json")
    assert "uneven" not in daptune("fit", pictures, *common).json["card"]
    for number in range(2, 10):
        (pictures / "red" / f"{number}.png").unlink()
    assert "--class-weight auto" in daptune("fit", pictures, *common).json["card"]["uneven"]
    assert "uneven" not in daptune("fit", pictures, *common, "--class-weight", "auto").json["card"]


def test_weights_of_classes(daptune: Command, pictures: Path, made_up_backbone: str) -> None:
    common = ("--backbone", made_up_backbone, "--method", "coop", "--epochs", "2", "--set", "text_tokens=2")
    Path("w.csv").write_text("class,weight\nred,4\ngreen thing,1\nblue_thing,1\n")
    done = daptune("fit", pictures, *common, "--class-weight", "w.csv", "--json")
    assert done.code == 0, done.err
    assert done.json["card"]["class weights"] == "0.5 (blue_thing) to 2 (red), mean 1 over the images"
    assert "'red': 4.0" in daptune("show", "adapter").out
    assert daptune("fit", pictures, *common, "--class-weight", "auto").code == 0
    assert "| class weights | auto |" in Path("adapter/README.md").read_text()


@pytest.mark.parametrize(
    ("text", "words", "message"),
    [
        ("class,weight\nred,4\n", (), "there is no weight for the class 'blue_thing' and 1 more; give one for"),
        ("class,weight\nredd,4\n", (), "there is a weight for 'redd', which is not a class. Did you mean 'red'?"),
        ("class,weight\nred,0\n", (), "the weight of 'red' must be a number above 0; found '0'"),
        (None, (), "w.csv cannot be read"),
        ("auto", ("--train", "sampling=balanced"), "both even out the classes; leave one of them out"),
        ("auto", ("--method", "prototype"), "prototype has no loss to weigh classes in"),
    ],
)  # fmt: skip
def test_wrong_weights_of_classes(
    text: str | None, words: tuple[str, ...], message: str, daptune: Command, pictures: Path, made_up_backbone: str
) -> None:
    if text not in (None, "auto"):
        Path("w.csv").write_text(text)
    given = "auto" if text == "auto" else "w.csv"
    done = daptune("fit", pictures, "--backbone", made_up_backbone, "--class-weight", given, *words)
    lines = [line for line in done.err.splitlines() if "open_clip_config.json" not in line]  # of the made-up backbone
    assert done.code == 2 and len(lines) == 1 and message in lines[0], done.err
    assert not Path("adapter").exists()


def test_unlabelled_images_teach_as_in_python(
    fit: Command, daptune: Command, pictures: Path, tmp_path: Path, made_up_backbone: str
) -> None:
    more = tmp_path / "more"
    for number, name in enumerate([*CLASSES, *CLASSES[:2]] * 2):
        save_picture(more / f"{number}.png", COLOURS[name], 300 + number)
    options = ("--method", "coop", "--holdout", "0")
    done = fit(pictures, *options, "--unlabelled", more, "--out", "a")
    assert done.code == 0 and "learned from 10 images without labels" in done.out
    assert "10 images, with gamma 0.02" in daptune("show", "a").out
    how: dict[str, Any] = {"method_options": {"text_tokens": 2}, "train_options": {"epochs": 2}}
    learned = FewShotClassifier("coop", made_up_backbone, shots=2, **how).fit(pictures, unlabelled=more, holdout=0)
    rows = daptune("predict", "a", more, "--top-k", "3").rows
    for row, probabilities in zip(rows, learned.predict_proba([row["file"] for row in rows]), strict=True):
        found = {top["label"]: top["probability"] for top in row["top"]}
        assert list(found.values()) == pytest.approx(sorted(probabilities, reverse=True), abs=2e-3)  # fp16 in the file
    assert "without labels" not in fit(pictures, *options, "--out", "b").out
    for wrong, message in (("nowhere", "there is no such folder"), (pictures / "red" / "0.png", "pass one file as a")):
        done = fit(pictures, *options, "--unlabelled", wrong, "--out", "c")
        assert done.code == 2 and message in done.err and not Path("c").exists()


def test_names_for_the_prompts(fit: Command, daptune: Command, pictures: Path, tmp_path: Path) -> None:
    for number, path in enumerate(sorted(pictures.iterdir()), 1):
        path.rename(pictures / str(number))
    (pictures / "cat_to_name.json").write_text('{"1": "a", "2": "b", "3": "c"}')  # --names comes before it
    (names := tmp_path / "names.csv").write_text("folder,name\n1,blue thing\n2,green\n2,grass\n3,red\n")
    done = fit(pictures, "--method", "coop", "--names", names, "--json")
    assert done.code == 0 and "cannot read" not in done.err, done.err
    assert done.json["card"]["names"] == "1 is blue thing, 2 is green or grass, 3 is red"
    assert set(done.json["held_out"]["coop"]["per_class"]) == {"1", "2", "3"}
    record = json.loads(Path("adapter/adapter.json").read_text("utf-8"))
    assert record["class_names"] == ["1", "2", "3"] and record["names"]["2"] == ["green", "grass"]
    assert "2 (green, grass)" in Path("adapter/README.md").read_text("utf-8")
    assert "green, grass" in daptune("show", "adapter").out
    rows = daptune("predict", "adapter", pictures / "1").out.splitlines()
    assert len(rows) == 10 and all(json.loads(row)["label"] in ("1", "2", "3") for row in rows)
    assert daptune("eval", "adapter", pictures, "--json").json["images"] == 30
    new = daptune("eval", "adapter", pictures, "--new-classes", "--names", names, "--json")
    assert set(new.json["per_class"]) == {"1", "2", "3"}
    done = daptune("eval", "adapter", pictures, "--names", names)
    assert done.code == 2 and "--names is for --new-classes" in done.err
    done = daptune("report", "adapter", "--images", pictures, "--out", tmp_path / "report.html")
    assert done.code == 0, done.err


def test_a_folder_without_a_name_is_one_line(fit: Command, pictures: Path, tmp_path: Path) -> None:
    (names := tmp_path / "names.csv").write_text("folder,name\nred,red\nblu,blue\n")
    done = fit(pictures, "--names", names)
    assert done.code == 2 and len(done.err.strip().splitlines()) == 1, done.err
    assert "no name is given for 2 of the 3 classes" in done.err and "names for 'blu', which are no classes" in done.err


def test_identical_images_in_two_classes_and_in_train_and_test_are_named(
    daptune: Command, made_up_backbone: str, tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    for split, count in (("train", 3), ("test", 2)):
        for place, name in enumerate(CLASSES):
            for number in range(count + place):
                seed = 100 * place + 10 * number + (split == "test")
                save_picture(folder / split / name / f"{number}.png", COLOURS[name], seed)
    words = ("fit", folder, "--backbone", made_up_backbone, "--epochs", "1", "--set", "text_tokens=2", "--json")
    assert "identical" not in daptune(*words).err
    shutil.copy(folder / "train/red/0.png", folder / "train/blue_thing/copy.png")
    for number in (0, 1):
        shutil.copy(folder / f"train/red/{number}.png", folder / f"test/red/seen {number}.png")
    done = daptune(*words)
    assert done.code == 0
    twice, seen = (line for line in done.err.splitlines() if "identical" in line)
    assert "1 of " in twice and "train/blue_thing/copy.png (blue_thing)" in twice and "train/red/0.png (red)" in twice
    assert "2 of " in seen and "test/red/seen 1.png (red) = train/red/1.png (red)" in seen and "optimistic" in seen
    done = daptune("eval", "adapter", folder)
    assert done.code == 0 and "2 of " in done.err and "optimistic" in done.err
    done = daptune("eval", "adapter", folder, "--split", "all")
    assert "images is identical to one of another class" in done.err and "identical to training" not in done.err
    assert "the adapter was trained on 13 of these 24 images" in done.err


def test_curves_for_tensorboard_are_those_of_the_history(fit: Command, pictures: Path) -> None:
    pytest.importorskip("tensorboard", reason="curves need the extra `tensorboard`")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert fit(pictures, "--out", "a", "--run-dir", "run", "--tensorboard", "logs").code == 0
    found = EventAccumulator("logs")
    found.Reload()
    history = [json.loads(line) for line in Path("run/history.jsonl").read_text("utf-8").splitlines()]
    assert [(each.step, each.value) for each in found.Scalars("epoch/total")] == [
        (row["step"], pytest.approx(row["losses"]["total"])) for row in history
    ]
    assert [each.step for each in found.Scalars("step/total")] == list(range(1, history[-1]["step"] + 1))
