"""The command line in this process: what each verb prints, and that bad input is one line and exit code 2."""

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
import torch
from PIL import Image

from daptune.adapter.store import make_record, save_adapter
from daptune.classifier import FewShotClassifier
from daptune.cli import console, demo, run
from daptune.cli.fit import below_zero_shot
from daptune.cli.methods import summary
from daptune.cli.options import FitOptions, Precision
from daptune.cli.training import Measured, prompt_text
from daptune.clip.backbone import load_backbone
from daptune.clip.precision import PRECISIONS
from daptune.data.demo import demo_styles, extract_demo
from daptune.data.sources import read_source
from daptune.methods import METHODS
from daptune.predict.inputs import items
from daptune.train import schedule

from .conftest import CLASSES, COLOURS, save_picture

QUICK = ("--shots", "2", "--epochs", "2", "--set", "text_tokens=2")


@dataclass
class Done:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


Command = Callable[..., Done]


@pytest.fixture
def daptune(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs `daptune ...` in an empty folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def call(*words: object) -> Done:
        capsys.readouterr()
        code = run([str(word) for word in words])
        captured = capsys.readouterr()
        return Done(code, captured.out, captured.err)

    return call


@pytest.fixture
def fit(daptune: Command, made_up_backbone: str) -> Command:
    """Runs a short `daptune fit` on the made-up backbone."""
    return lambda folder, *words: daptune("fit", folder, "--backbone", made_up_backbone, *QUICK, *words)


def test_fit_prints_a_card_tables_and_what_to_type_next(fit: Command, pictures: Path) -> None:
    done = fit(pictures, "--out", "my adapter")
    assert done.code == 0, done.err
    for words in ("Distribution-Aware", "learns", "fingerprint", "held out", "zero_shot", "dapt", "macro-F1", "worst"):
        assert words in done.out
    assert "daptune predict 'my adapter' PICTURES" in done.out
    assert {path.name for path in Path("my adapter").iterdir()} == {"adapter.json", "adapter.safetensors", "README.md"}
    assert [path.name for path in Path("my adapter.run").iterdir()] == ["history.jsonl"]
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
    assert set(done.json["held_out"]) == {"split", "images", "zero_shot", "coop"}
    assert done.json["card"]["prompt"] == "[2 learned tokens] <class>."


def test_fit_says_when_the_tuned_method_is_below_zero_shot(
    fit: Command, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The figures are made up, for on made-up pictures chance decides them."""
    figures = {"zero_shot": 0.5, "dapt": 0.25}

    def measured(method: Any, *_: Any, **__: Any) -> Measured:
        return Measured(figures.get(method.name, 0.25), 0.1, 1.0, np.array([0.1, 0.2, 0.3]))

    monkeypatch.setattr("daptune.cli.fit.measure", measured)
    done = fit(pictures)
    line = done.err.splitlines()[-1]
    assert done.code == 0 and line == (
        "daptune: warning: dapt is right on 25.0 % of the held-out images and zero_shot on 50.0 %: it lost more than "
        "it learned, and CLIP as it is does better here. Try: more images of each class; --preset paper; --method "
        "lp_pp or tip_adapter; a gentler start (--set context_init='a photo of a' --lr 0.001)."
    )
    assert done.out.index("macro-F1") < done.out.index("time to learn")
    found = fit(pictures, "--json")
    assert found.json["warning"] == line.removeprefix("daptune: warning: ") and "zero_shot" not in found.err
    warning = fit(pictures, "--json", "--preset", "paper", "--set", "context_init=a photo of a").json["warning"]
    assert warning.endswith("Try: more images of each class; --method lp_pp or tip_adapter.")
    figures["dapt"] = 0.5
    assert fit(pictures, "--json").json["warning"] is None
    figures["zero_shot"] = 0.1
    assert "zero_shot" not in fit(pictures).err


def test_a_method_is_not_the_advice_for_itself(fitted: FewShotClassifier) -> None:
    low, high = (Measured(accuracy, 0.1, 1.0, np.zeros(3)) for accuracy in (0.2, 0.4))
    classifier = FewShotClassifier("lp_pp")
    classifier.method_ = METHODS["lp_pp"](fitted.backbone_, CLASSES)
    warning = below_zero_shot(classifier, {"zero_shot": high, "lp_pp": low})
    assert warning is not None and warning.endswith("--preset paper; --method tip_adapter.")
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
    assert "no images were held out" in done.err
    assert "fewer than 2 images, all used" in done.err


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


def test_eval(daptune: Command, adapter: Path, pictures: Path) -> None:
    done = daptune("eval", adapter, pictures)
    assert done.code == 0 and "accuracy" in done.out and "worst first" in done.out
    found = daptune("eval", adapter, pictures, "--json").json
    assert found["images"] == 30 and found["split"] == "all"
    assert set(found["per_class"]) == set(CLASSES)
    (pictures / "green thing").rename(pictures / "GREEN_THING")
    assert daptune("eval", adapter, pictures, "--json").json["accuracy"] == found["accuracy"]


def test_eval_of_test_images_alone(fit: Command, daptune: Command, adapter: Path, pictures: Path) -> None:
    (style := pictures.parent / "style").mkdir()
    pictures.rename(style / "test")
    for words in ((), ("--split", "test"), ("--split", "all"), ("--new-classes",)):
        found = daptune("eval", adapter, style, *words, "--json").json
        assert found["images"] == 30 and found["split"] == ("all" if "all" in words else "test")
    (style / "test" / "red" / "0.png").write_bytes(b"no image")
    done = daptune("eval", adapter, style, "--json")
    assert done.json["images"] == 29 and "1 of 30 images cannot be read" in done.err
    done = daptune("eval", adapter, style, "--split", "val")
    assert done.code == 2 and "has no val images; it has test" in done.err
    done = fit(style)
    assert done.code == 2 and len(done.err.splitlines()) == 1
    assert f"found test images alone; add a train split, or give {style / 'test'} itself" in done.err


def test_the_styles_of_the_demo_can_be_measured_on(daptune: Command, tmp_path: Path) -> None:
    style = extract_demo(tmp_path / "demo") / demo_styles()[1]
    assert [path.name for path in style.iterdir()] == ["test"]
    backbone = load_backbone("tiny")
    names = read_source(style, training=False).train.class_names
    method = METHODS["zero_shot"](backbone, names)
    folder = save_adapter(tmp_path / "a", method, make_record(method, backbone))
    assert daptune("eval", folder, style, "--split", "test", "--json").json["accuracy"] > 2 / len(names)


def test_eval_on_new_classes(daptune: Command, adapter: Path, pictures: Path) -> None:
    (pictures / "red").rename(pictures / "tomato")
    done = daptune("eval", adapter, pictures)
    assert done.code == 2 and "tomato" in done.err
    found = daptune("eval", adapter, pictures, "--new-classes", "--json").json
    assert set(found["per_class"]) == {"blue_thing", "green thing", "tomato"}


def test_predict_gives_a_row_a_file_in_order(daptune: Command, adapter: Path, pictures: Path) -> None:
    broken = pictures / "broken.png"
    broken.write_bytes(b"no image")
    done = daptune("predict", adapter, pictures / "red", broken, "missing.png", pictures / "blue_thing" / "3.png")
    assert done.code == 0, done.err
    files = [row["file"] for row in done.rows]
    reds = [str(pictures / "red" / f"{number}.png") for number in range(10)]
    assert files == [*reds, str(broken), "missing.png", str(pictures / "blue_thing" / "3.png")]
    assert [row["file"] for row in done.rows if "error" in row] == [str(broken), "missing.png"]
    assert all(row["label"] in CLASSES and 0 <= row["probability"] <= 1 for row in done.rows if "label" in row)


def test_predict_as_csv_with_several_classes(daptune: Command, adapter: Path, pictures: Path) -> None:
    done = daptune("predict", adapter, pictures / "red", "nothing.png", "--format", "csv", "--top-k", "2")
    rows = list(csv.DictReader(io.StringIO(done.out)))
    assert list(rows[0]) == ["file", "label", "probability", "label_2", "probability_2", "error"]
    assert float(rows[0]["probability"]) >= float(rows[0]["probability_2"])
    assert rows[-1]["error"] and not rows[-1]["label"]
    assert daptune("predict", adapter, pictures / "red", "--out", "rows.csv").out == ""
    assert Path("rows.csv").read_text().startswith("file,label,probability,error\n")
    daptune("predict", adapter, pictures / "red", "--out", "rows.jsonl", "--top-k", "9", "--batch-size", "3")
    assert len(json.loads(Path("rows.jsonl").read_text().splitlines()[0])["top"]) == 3
    assert sorted(path.name for path in Path().iterdir()) == ["rows.csv", "rows.jsonl"]


def test_predict_reads_a_list_from_standard_input(
    daptune: Command, adapter: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [str(pictures / "red" / "1.png"), "", str(pictures / "blue_thing" / "2.png")]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\r\n".join(lines)))
    assert [row["file"] for row in daptune("predict", adapter, "-").rows] == [lines[0], lines[2]]
    monkeypatch.setattr(sys, "stdin", io.StringIO("a b.png\n"))
    assert list(items(["-"])) == [("a b.png", Path("a b.png"))]


def test_predict_of_nothing_readable_is_an_error(daptune: Command, adapter: Path) -> None:
    done = daptune("predict", adapter, "a.png", "b.png")
    assert done.code == 2
    assert [set(row) for row in done.rows] == [{"file", "error"}] * 2
    assert done.err == "daptune: error: none of the 2 files could be read; each row says why\n"


def test_methods(daptune: Command, made_up_backbone: str) -> None:
    rows = {row["name"]: row for row in daptune("methods", "--backbone", made_up_backbone, "--json").json["methods"]}
    assert set(rows) >= {"zero_shot", "linear_probe", "coop", "vpt", "coop_vpt", "dapt"}
    assert rows["dapt"]["parameters"] == 16 * 64 + 16 * 64 and rows["dapt"]["parameters_per_class"] == 0
    assert rows["linear_probe"]["parameters_per_class"] == 33 and not rows["linear_probe"]["new_classes"]
    assert "Distribution-Aware" in rows["dapt"]["title"]
    assert {name for name, row in rows.items() if row["uses_validation"]} >= {"linear_probe", "tip_adapter", "lp_pp"}


def test_methods_are_listed_with_what_they_learn_and_need(
    daptune: Command, made_up_backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "_PLAIN_WIDTH", 300)
    lines = daptune("methods", "--backbone", made_up_backbone).out.splitlines()
    cells = {row[0]: row[1:] for line in lines if len(row := re.split(r"  +", line.strip())) == 6}
    assert set(cells) == {"name", *METHODS}
    assert cells["name"] == ["year", "what it learns", "needs", "parameters", "new classes"]
    assert cells["coop"] == ["2022", "learn the words around the class name", "steps", "1,024", "yes"]
    assert cells["zero_shot"][2:] == ["no images", "0", "yes"]
    assert cells["linear_probe"][2:] == ["no steps, validation images", "33 a class", "no"]
    assert cells["tip_adapter_f"][2:] == ["steps, validation images", "as the images", "no"]
    assert cells["prototype"][2:] == ["no steps", "32 a class", "no"]


def test_a_method_without_a_line_of_its_own_is_listed_by_its_title(monkeypatch: pytest.MonkeyPatch) -> None:
    for text, expected in {
        "X: learns a, and b; the rest, c.\n\nMore: d.": "learns a, and b",
        "X: learns a.": "learns a",
        "Learns a.": "CoOp + VPT",
        None: "CoOp + VPT",
    }.items():
        monkeypatch.setattr(sys.modules[METHODS["coop_vpt"].__module__], "__doc__", text)
        assert summary(METHODS["coop_vpt"]) == expected


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_a_prompt_in_words_and_can_be_shown(
    name: str, fitted: FewShotClassifier, tmp_path: Path, daptune: Command
) -> None:
    method = METHODS[name](fitted.backbone_, CLASSES)
    assert prompt_text(method)
    folder = save_adapter(tmp_path / "a", method, make_record(method, fitted.backbone_))
    assert daptune("show", folder, "--words", "1").code == 0


def test_show(daptune: Command, adapter: Path, tmp_path: Path, made_up_backbone: str) -> None:
    done = daptune("show", adapter, "--words", "2")
    assert done.code == 0 and "text_prompt 4 x 64" in done.out and "words nearest" in done.out
    found = daptune("show", adapter, "--json").json
    assert found["record"]["method"] == "coop_vpt"
    assert [len(row["words"]) for row in found["nearest_words"]] == [3] * 4
    distances = [word["distance"] for word in found["nearest_words"][0]["words"]]
    assert distances == sorted(distances)
    copy = shutil.copytree(adapter, tmp_path / "copy")
    text = (copy / "adapter.json").read_text()
    (copy / "adapter.json").write_text(text.replace(made_up_backbone, "/nowhere/clip.pt"))
    done = daptune("show", copy)
    assert done.code == 0 and "nearest words are left out" in done.err and "coop_vpt" in done.out
    moved = ("--backbone", made_up_backbone)
    assert daptune("predict", copy, tmp_path / "none.png").code == 2
    assert "needs the backbone" not in daptune("predict", copy, tmp_path / "none.png", *moved).err


def test_pull_of_what_is_here(daptune: Command, made_up_backbone: str) -> None:
    found = daptune("pull", made_up_backbone, "--json").json
    assert found["bytes"] == Path(made_up_backbone).stat().st_size and len(found["sha256"]) == 64
    assert "sha256" in daptune("pull", made_up_backbone).out


def test_demo_runs_from_beginning_to_end(daptune: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one picture a class and a few to measure on; the whole of it is `make demo`."""
    whole = demo.demo_tables

    def few(*args: Any) -> Any:
        train, tests = whole(*args)
        return train, {style: table.subset(range(0, len(table), 20)) for style, table in tests.items()}

    monkeypatch.setattr(demo, "demo_tables", few)
    monkeypatch.setattr(demo, "SHOTS", 1)
    done = daptune("demo", "--epochs", "1")
    assert done.code == 0, done.err
    for words in ("zero-shot", "CoOp + VPT", "DAPT", "Three predictions", "daptune fit FOLDER", "ViT-B-16/openai"):
        assert words in done.out
    assert done.err == ""
    found = daptune("demo", "--epochs", "1", "--json").json
    assert set(found["accuracy"]) == {"zero_shot", "coop_vpt", "dapt"}
    assert len(found["accuracy"]["dapt"]) >= 4 and len(found["predictions"]) == 3
    assert daptune("show", found["adapter"]).code == 0
    assert daptune("demo", "--out", "daptune-demo/pictures/ATTRIBUTION.md").code == 2


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


# --- bad input -------------------------------------------------------------------------------------------------------

Bad = Callable[[Path, Path, str], list[object]]  # (pictures, adapter copy, backbone) -> words after which code is 2


def empty(pictures: Path, *_: object) -> list[object]:
    (pictures / "new").mkdir()
    return ["fit", pictures / "new"]


def one_class(pictures: Path, *_: object) -> list[object]:
    for name in CLASSES[:2]:
        shutil.rmtree(pictures / name)
    return ["fit", pictures]


def loose_images(pictures: Path, *_: object) -> list[object]:
    return ["fit", pictures / "red"]


def emptied_class(pictures: Path, *_: object) -> list[object]:
    for path in (pictures / "red").iterdir():
        path.write_bytes(b"no image")
    return ["fit", pictures]


def same_names(pictures: Path, *_: object) -> list[object]:
    shutil.copytree(pictures / "blue_thing", pictures / "Blue thing")
    return ["fit", pictures]


def long_name(pictures: Path, *_: object) -> list[object]:
    (pictures / "red").rename(pictures / ("zqx9 " * 40).strip())
    return ["fit", pictures]


def bomb(pictures: Path, *_: object) -> list[object]:
    Image.fromarray(np.zeros((20_000, 20_000), np.uint8)).save(pictures / "bomb.png")
    return ["predict", "ADAPTER", pictures / "bomb.png"]


def resized_checkpoint(pictures: Path, adapter: Path, backbone: str) -> list[object]:
    state = torch.load(backbone, weights_only=True)
    state["text_projection"] = state["text_projection"][:, :5]
    torch.save(state, pictures.parent / "odd.pt")
    return ["fit", pictures, "--backbone", pictures.parent / "odd.pt"]


def cut_checkpoint(pictures: Path, adapter: Path, backbone: str) -> list[object]:
    (pictures.parent / "cut.pt").write_bytes(Path(backbone).read_bytes()[:100_000])
    return ["fit", pictures, "--backbone", pictures.parent / "cut.pt"]


def other_checkpoint(pictures: Path, *_: object) -> list[object]:
    torch.save({"weight": torch.zeros(3)}, pictures.parent / "linear.pt")
    return ["fit", pictures, "--backbone", pictures.parent / "linear.pt"]


def newer_adapter(pictures: Path, adapter: Path, _: str) -> list[object]:
    text = (adapter / "adapter.json").read_text()
    (adapter / "adapter.json").write_text(text.replace('"format_version": 1', '"format_version": 9'))
    return ["predict", adapter, pictures]


def damaged_adapter(pictures: Path, adapter: Path, _: str) -> list[object]:
    (adapter / "adapter.safetensors").write_bytes(b"damaged")
    return ["predict", adapter, pictures]


def occupied_out(pictures: Path, *_: object) -> list[object]:
    return ["fit", pictures, "--out", pictures]


def fitting(*words: object) -> Bad:
    return lambda pictures, adapter, backbone: ["fit", pictures, "--backbone", backbone, *words]


def predicting(*words: object) -> Bad:
    return lambda pictures, adapter, backbone: ["predict", adapter, pictures, *words]


def plain(*words: object) -> Bad:
    return lambda pictures, adapter, backbone: list(words)


BAD: dict[str, tuple[Bad, str]] = {
    "missing folder": (plain("fit", "nowhere"), "no folder or file at nowhere"),
    "empty folder": (empty, "expected one sub-folder of images a class"),
    "images without classes": (loose_images, "found images but no sub-folders"),
    "one class only": (one_class, "two class folders"),
    "a class without a readable image": (emptied_class, "no image of red can be read"),
    "two names that read the same": (same_names, "make the same prompt"),
    "a name too long for the context": (long_name, "zqx9"),
    "a decompression bomb": (bomb, "none of the 1 files could be read"),
    "unknown method": (fitting("--method", "dapd"), "There is no method 'dapd'. Did you mean 'dapt'?"),
    "unknown backbone": (plain("fit", ".", "--backbone", "ViT-B-61/openai"), "Did you mean 'ViT-B-16/openai'?"),
    "unknown option of the method": (fitting("--set", "inter_wieght=1"), "Did you mean 'inter_weight'?"),
    "option without value": (fitting("--set", "inter_weight"), "--set expects option=value"),
    "value of another kind": (fitting("--set", "text_tokens=many"), "expected a whole number, found 'many'"),
    "unknown option": (fitting("--shot", "4"), "Unknown option: --shot. Did you mean --shots?"),
    "unknown verb": (plain("fitt"), 'Did you mean "fit"?'),
    "missing argument": (plain("fit"), "FOLDER"),
    "no such choice": (fitting("--precision", "fp8"), '"fp8"'),
    "shots": (fitting("--shots", "0"), "--shots must be a whole number of at least 1, or all"),
    "epochs": (fitting("--epochs", "0"), "epochs must be a whole number"),
    "learning rate": (fitting("--lr", "nan"), "lr must be a number above 0"),
    "holdout": (fitting("--holdout", "1.5"), "--holdout must be"),
    "template": (fitting("--template", "a photo"), "{}"),
    "device": (fitting("--device", "gpu"), "use cpu"),
    "preset": (fitting("--preset", "papre"), "Did you mean 'paper'?"),
    "data set": (fitting("--preset", "paper", "--dataset", "eurosatt"), "Did you mean 'eurosat'?"),
    "data set without preset": (fitting("--dataset", "eurosat"), "add --preset paper"),
    "validation asked for and none there": (fitting("--select", "best_val"), "validation"),
    "output folder in use": (occupied_out, "holds something that is not an adapter"),
    "nan loss": (fitting("--optimizer", "sgd", "--lr", "1e38", "--epochs", "8"), "Use a lower --lr"),
    "checkpoint of another kind": (other_checkpoint, "linear.pt"),
    "checkpoint of odd shapes": (resized_checkpoint, "odd.pt"),
    "checkpoint cut off": (cut_checkpoint, "cut.pt"),
    "no adapter": (plain("predict", "nowhere", "x.png"), "no adapter at nowhere"),
    "folder that is no adapter": (plain("show", "."), "is not an adapter"),
    "newer adapter": (newer_adapter, "made by a newer daptune: format 9"),
    "damaged adapter": (damaged_adapter, "is damaged"),
    "start that is not there": (fitting("--from", "nowhere"), "no adapter at nowhere"),
    "start of another method": (
        fitting("--from", "ADAPTER"),
        "was made with the method 'coop_vpt' and cannot start a fit of 'dapt'",
    ),
    "start of other sizes": (
        fitting("--method", "coop_vpt", "--from", "ADAPTER"),
        "text_tokens=4 there, 16 here",
    ),
    "adapter for another backbone": (predicting("--backbone", "OTHER"), "belongs to the backbone"),
    "no images": (plain("predict", "ADAPTER"), "no images given"),
    "empty list of images": (plain("predict", "ADAPTER", "."), "no image files in ."),
    "top-k": (predicting("--top-k", "0"), "--top-k must be at least 1"),
    "batch size": (predicting("--batch-size", "0"), "--batch-size must be at least 1"),
    "two formats": (predicting("--json", "--format", "csv"), "leave one out"),
    "folder of output missing": (predicting("--out", "no/rows.csv"), "No such file or directory"),
    "split that is not there": (
        lambda pictures, adapter, _: ["eval", adapter, pictures, "--split", "test"],
        "has no test images; it has train",
    ),
    "unknown model to pull": (plain("pull", "ViT-Q/openai"), "ViT-Q/openai"),
    "pull without network": (plain("pull", "ViT-B-32/openai"), "HF_HUB_OFFLINE"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_exit_code_2(
    case: str, daptune: Command, pictures: Path, adapter: Path, made_up_backbone: str, tmp_path: Path
) -> None:
    make, message = BAD[case]
    copy = Path(shutil.copytree(adapter, tmp_path / "copy"))
    words = [copy if word == "ADAPTER" else word for word in make(pictures, copy, made_up_backbone)]
    if "OTHER" in words:
        state = torch.load(made_up_backbone, weights_only=True)
        torch.save(state | {"ln_final.bias": state["ln_final.bias"] + 1}, tmp_path / "other.pt")
        words[words.index("OTHER")] = tmp_path / "other.pt"
    if words[0] == "fit" and "--backbone" not in words:
        words += ["--backbone", made_up_backbone]
    if words[0] == "fit" and "--epochs" not in words:
        words += ["--epochs", 2]
    done = daptune(*words)
    errors = [line for line in done.err.splitlines() if not line.startswith("daptune: warning: ")]
    assert done.code == 2, done
    assert len(errors) == 1, done.err
    assert errors[0].startswith("daptune: error: ")
    assert message in errors[0]
    assert "Traceback" not in done.err
    assert not Path("adapter").exists()


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


def test_debug_shows_the_traceback(daptune: Command) -> None:
    with pytest.raises(ValueError, match="no folder or file"):
        daptune("fit", "nowhere", "--debug")


def test_a_fault_of_our_own_is_told_apart(daptune: Command, monkeypatch: pytest.MonkeyPatch, adapter: Path) -> None:
    def fault(*_: object, **__: object) -> None:
        raise KeyError("oops")

    monkeypatch.setattr("daptune.cli.show.read_record", fault)
    done = daptune("show", adapter)
    assert done.code == 1 and done.err.startswith("daptune: error: a fault of daptune: KeyError")


@pytest.mark.parametrize("verb", ["", "demo", "fit", "eval", "predict", "methods", "bench", "tune", "show", "pull"])
def test_every_verb_has_help(verb: str, daptune: Command) -> None:
    done = daptune(*([verb] if verb else []), "--help")
    assert done.code == 0 and "Usage: daptune" in done.out and done.err == ""
    assert verb in {"", "pull"} or "--json" in done.out


def test_choices_of_the_command_line_are_those_of_the_library() -> None:
    assert get_args(Precision) == PRECISIONS
    chosen = get_type_hints(FitOptions)
    for name in ("optimizer", "select", "memory", "augment_on"):
        assert get_args(get_args(chosen[name])[0]) == schedule._CHOICES[name]
    training = {field.name for field in fields(schedule.TrainConfig)}
    augmentation = {"min_crop", "flip", "views", "augment_on"}
    memory = {"batch_size", "accumulate", "memory", "compile"}
    assert training & set(chosen) == {"epochs", "lr", "optimizer", "select", "seed", *memory, *augmentation}


def test_the_command_and_the_module_are_the_same_program() -> None:
    for program in ([sys.executable, "-m", "daptune"], [str(Path(sys.executable).with_name("daptune"))]):
        done = subprocess.run([*program, "fit", "nowhere"], capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("daptune: error: no folder or file at nowhere")


def test_a_reader_that_has_enough_is_no_error(adapter: Path, pictures: Path) -> None:
    command = f"'{sys.executable}' -m daptune predict '{adapter}' '{pictures}' --batch-size 1 | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert len(done.stdout.splitlines()) == 1
    assert "Traceback" not in done.stderr and "error" not in done.stderr
