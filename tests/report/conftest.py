"""Reports made once, and looked at by several tests."""

from pathlib import Path

import pytest

pytest.importorskip("matplotlib", reason="figures need the extra `report`")

from daptune.cli import run


@pytest.fixture(scope="session")
def bench_report(bench_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of that run."""
    out = tmp_path_factory.mktemp("bench-report") / "report.html"
    assert run(["report", str(bench_run), "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="session")
def fitted_folder(made_up_backbone: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `pictures/`, in which two labels are wrong, `adapter/` and `adapter.run/`; not to be changed."""
    from ..conftest import CLASSES, COLOURS, save_picture

    folder = tmp_path_factory.mktemp("fit")
    names = (*CLASSES[:2], "<script>alert(1)<&>")
    for place, (name, colour) in enumerate(zip(names, COLOURS.values(), strict=True)):
        for number in range(10):
            save_picture(folder / "pictures" / name / f"{number}.png", colour, 100 * place + number)
    wrong = folder / "pictures" / names[0]
    save_picture(wrong / "0.png", COLOURS["red"], 7)
    save_picture(wrong / "1.png", COLOURS["red"], 8)
    words = ["fit", str(folder / "pictures"), "--backbone", made_up_backbone, "--out", str(folder / "adapter")]
    options = ["--epochs", "3", "--set", "text_tokens=2", "--set", "vision_tokens=2", "--json"]
    assert run([*words, *options]) == 0
    return folder


@pytest.fixture(scope="session")
def fit_report(fitted_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of that fit, with its images."""
    out = tmp_path_factory.mktemp("fit-report") / "report.html"
    words = ["report", fitted_folder / "adapter", "--images", fitted_folder / "pictures", "--out", out]
    assert run([str(word) for word in words]) == 0
    return out
