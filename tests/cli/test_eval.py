"""`daptune eval`."""

import shutil
from pathlib import Path

import pytest

from daptune.adapter import drawn
from daptune.adapter.store import make_record, save_adapter
from daptune.classifier import FewShotClassifier
from daptune.clip.backbone import load_backbone
from daptune.data.demo import demo_styles, extract_demo
from daptune.data.sources import read_source
from daptune.methods import METHODS

from ..conftest import CLASSES
from .conftest import Command


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


def test_images_that_the_adapter_was_trained_on_are_counted(
    fit: Command, daptune: Command, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fit(pictures, "--out", "a", "--holdout", "0.4").code == 0
    done = daptune("eval", "a", pictures)
    assert (
        done.code == 0 and "trained on 6 of these 30 images, so the figures are optimistic" in done.err
    )  # 3 x 2 shots
    assert f"`daptune report a --images {pictures}` measures those that were held out" in done.err
    assert daptune("eval", "a", pictures, "--json").json["trained_on"] == 6
    assert fit(pictures, "--out", "all", "--holdout", "0").code == 0
    told = daptune("eval", "all", pictures).err
    assert "trained on 6 of these 30 images" in told and "measure it on images it has not seen" in told
    (style := pictures.parent / "style").mkdir()
    pictures.rename(style / "train")
    shutil.copytree(style / "train", style / "test")
    assert fit(style, "--out", "b").code == 0
    for split, seen in (("test", 0), ("train", 6), ("all", 6)):
        done = daptune("eval", "b", style, "--split", split, "--json")
        assert done.json["trained_on"] == seen and ("so the figures are optimistic" in done.err) is False
    assert "trained on 6 of these 60 images" in daptune("eval", "b", style, "--split", "all").err
    assert "trained on" not in daptune("eval", "b", style).err
    monkeypatch.setattr(drawn, "draw_again", None)  # test images hold none: nothing is drawn, which may be a long time
    assert daptune("eval", "b", style).code == 0


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


def test_eval_of_unknown_images_and_sets(
    daptune: Command, adapter: Path, fitted: FewShotClassifier, pictures: Path
) -> None:
    paths = [str(path) for path in sorted(pictures.rglob("*.png"))]
    names = [Path(path).parent.name for path in paths]
    known, sets = fitted.predict_known(paths), fitted.predict_sets(paths, error=0.3)
    found = daptune("eval", adapter, pictures, "--reject", "0.3", "--sets", "0.3", "--json").json
    assert found["turned_away"] == pytest.approx((known <= 0.3).mean())
    assert found["coverage"] == pytest.approx(sum(map(list.__contains__, sets, names)) / 30)
    assert found["set_size"] == pytest.approx(sum(map(len, sets)) / 30)
    shown = daptune("eval", adapter, pictures, "--reject", "0.3", "--sets", "0.3").out
    assert "called unknown at 0.3" in shown and "sets at 0.3 hold the truth" in shown
    assert "unknown" not in daptune("eval", adapter, pictures).out
    assert not {"turned_away", "coverage"} & daptune("eval", adapter, pictures, "--json").json.keys()
    done = daptune("eval", adapter, pictures, "--sets", "1.5")
    assert done.code == 2 and "--sets must be a share between 0 and 1" in done.err


def test_eval_of_a_set(daptune: Command, adapter: Path, fitted: FewShotClassifier, pictures: Path) -> None:
    paths = [str(path) for path in sorted(pictures.rglob("*.png"))]
    names = [Path(path).parent.name for path in paths]
    expected = (fitted.transductive().predict(paths) == names).mean()
    found = daptune("eval", adapter, pictures, "--transductive", "--json").json
    assert found["transductive"]["accuracy"] == pytest.approx(expected)
    assert found["accuracy"] == pytest.approx((fitted.predict(paths) == names).mean())
    shown = daptune("eval", adapter, pictures, "--transductive").out
    assert f"{100 * expected:.1f} % ({100 * found['accuracy']:.1f} % alone)" in shown
    assert "as one set" not in daptune("eval", adapter, pictures).out
