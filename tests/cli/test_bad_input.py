"""Bad input of every verb is one line and exit code 2."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ..conftest import CLASSES
from .conftest import Command

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
    (adapter / "adapter.json").write_text(text.replace('"format_version": 2', '"format_version": 9'))
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
    beside = re.compile(r"daptune: (warning: |\w+ \d+/\d+: )")  # warnings, and a line of each epoch before
    errors = [line for line in done.err.splitlines() if not beside.match(line)]
    assert done.code == 2, done
    assert len(errors) == 1, done.err
    assert errors[0].startswith("daptune: error: ")
    assert message in errors[0]
    assert "Traceback" not in done.err
    assert not Path("adapter").exists()
