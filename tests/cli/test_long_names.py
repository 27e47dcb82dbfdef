"""Class names that are too long for the text tower are refused before the training, where it reads them."""

from pathlib import Path

import pytest

from ..conftest import save_picture
from .conftest import Command

LONG = " ".join(["zq"] * 80)
"""239 letters, and more tokens than the 77 of the text tower."""


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for place, name in enumerate((LONG, "red")):
        for number in range(6):
            save_picture(tmp_path / "images" / name / f"{number}.png", (90 * place, 40, 200), number)
    return tmp_path / "images"


@pytest.mark.parametrize(
    ("method", "advice"),
    [("coop", "shorten the name (--names keeps the label)."), ("zero_shot", "--names"), ("tip_adapter", "--names")],
)
def test_methods_that_read_names_refuse_them(
    method: str, advice: str, daptune: Command, images: Path, made_up_backbone: str
) -> None:
    done = daptune("fit", images, "--method", method, "--backbone", made_up_backbone)
    errors = [line for line in done.err.splitlines() if line.startswith("daptune: error:")]
    assert done.code == 2 and len(errors) == 1 and LONG[:30] in errors[0] and advice in errors[0], done.err
    assert not Path("adapter").exists() and not Path("adapter.run").exists()


@pytest.mark.parametrize("method", ["linear_probe", "prototype"])
def test_others_take_them_and_leave_zero_shot_out(
    method: str, daptune: Command, images: Path, made_up_backbone: str
) -> None:
    done = daptune("fit", images, "--method", method, "--backbone", made_up_backbone, "--json")
    assert done.code == 0, done.err
    assert "zero-shot CLIP is left out of the comparison: the hand-written prompt of the class" in done.err
    assert set(done.json["held_out"]) == {"split", "images", method}


def test_templates_are_checked_before_the_training(daptune: Command, images: Path, made_up_backbone: str) -> None:
    words = ("--method", "coop", "--backbone", made_up_backbone, "--set", "text_tokens=4", "--epochs", "1")
    (images / LONG).rename(images / "blue")
    done = daptune("fit", images, *words, "--template", f"{LONG} {{}}.")
    errors = [line for line in done.err.splitlines() if line.startswith("daptune: error:")]
    assert done.code == 2 and "a shorter --template; or leave it out with --ensemble none" in errors[0], done.err
    assert "coop 1/1" not in done.err
    alone = daptune("fit", images, *words, "--template", f"{LONG} {{}}.", "--ensemble", "none")
    assert alone.code == 0 and "zero-shot CLIP is left out" in alone.err, alone.err
