"""A made-up backbone, made-up pictures and a fitted adapter, shared by the tests of the outer rooms."""

import csv
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):  # several processes share the cores
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // int(workers)))

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a shell's background; tests interrupt runs
    signal.signal(signal.SIGINT, signal.default_int_handler)

CLASSES = ("blue_thing", "green thing", "red")
COLOURS = {"blue_thing": (40, 60, 200), "green thing": (50, 190, 70), "red": (200, 40, 40)}
SHARES = {"blue_thing": 0.7, "green thing": 0.4, "red": 0.25}
"""Of the images with several labels, in `stripes_table`."""


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test depends on the terminal or on those before it, reaches the network, or writes to the user's cache."""
    torch.manual_seed(0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path.with_name(f"{tmp_path.name}-cache")))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in ("FORCE_COLOR", "CLICOLOR_FORCE", "COLUMNS", "PIP_CONSTRAINT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def made_up_backbone(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Path of a random CLIP of the standard architecture: 2 layers of width 64, 32-pixel images, CLIP's words."""
    from daptune.clip.model import CLIP, CLIPConfig

    config = CLIPConfig(
        embed_dim=32,
        image_size=32,
        patch_size=16,
        vision_width=64,
        vision_layers=2,
        vision_heads=1,
        vision_mlp=256,
        context_length=77,
        vocab_size=49408,
        text_width=64,
        text_layers=2,
        text_heads=1,
        text_mlp=256,
    )
    generator = torch.Generator().manual_seed(0)
    clip = CLIP(config)
    state = {
        name: torch.randn(value.shape, generator=generator) * 0.1 + (1.0 if "ln_" in name and "weight" in name else 0)
        for name, value in clip.state_dict().items()
    }
    state["logit_scale"] = torch.tensor(3.0)
    path = tmp_path_factory.mktemp("backbone") / "made-up.pt"
    torch.save(state, path)
    return str(path)


def save_picture(path: Path, colour: tuple[int, int, int], seed: int) -> None:
    """40 x 36 pixels of one colour with noise."""
    noise = np.random.default_rng(seed).normal(0, 30, (36, 40, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((np.array(colour) + noise).clip(0, 255).astype(np.uint8)).save(path)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of three classes with ten pictures each."""
    folder = tmp_path / "pictures"
    for place, name in enumerate(CLASSES):
        for number in range(10):
            save_picture(folder / name / f"{number}.png", COLOURS[name], 100 * place + number)
    return folder


@pytest.fixture(scope="session")
def paths_and_labels(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], list[str]]:
    """Thirty paths of pictures with the names of their classes, in mixed order."""
    folder = tmp_path_factory.mktemp("mixed")
    paths, labels = [], []
    for number in range(10):
        for place, name in enumerate(CLASSES):
            path = folder / f"{number}-{place}.png"
            save_picture(path, COLOURS[name], 1000 + 10 * number + place)
            paths.append(os.fspath(path))
            labels.append(name)
    return paths, labels


@pytest.fixture(scope="session")
def stripes_table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 pictures with several labels in a CSV: 36 to train on, 12 to validate and 12 to test on."""
    folder = tmp_path_factory.mktemp("stripes")
    rng, rows = np.random.default_rng(7), []
    for number in range(60):
        names = [name for name, share in SHARES.items() if rng.random() < share]
        _stripes(folder / f"{number}.png", names, number)
        split = "train" if number < 36 else "val" if number < 48 else "test"
        rows.append((f"{number}.png", "|".join(names), split))
    with open(folder / "labels.csv", "w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "split"), *rows])
    return folder / "labels.csv"


def _stripes(path: Path, names: list[str], seed: int) -> None:
    """A picture with a stripe for each class, grey without any."""
    noise = np.random.default_rng(seed).normal(0, 20, (36, 36, 3))
    colours = [COLOURS[name] for name in names] or [(128, 128, 128)]
    whole = np.concatenate([np.tile(np.array(part, float), (36 // len(colours), 36, 1)) for part in colours])
    Image.fromarray((whole + noise[: len(whole)]).clip(0, 255).astype(np.uint8)).save(path)


def scores_by_hand(method: Any, images: torch.Tensor) -> np.ndarray:
    """Class scores (B, C) of images (B, 3, R, R) in numpy, with the numbers that the adapter stores of an ensemble."""
    with torch.no_grad():
        logits = method.logits(images).double().numpy()
        z = method.encode(images).double().numpy()
    if method.ensemble is None:
        return logits
    weights, bias = (part.double().numpy() for part in (method.ensemble.weights, method.ensemble.bias))
    unit = z / np.sqrt((z**2).sum(axis=1, keepdims=True))
    return unit @ weights.T + bias + method.ensemble.mix.factors[2] * logits


def with_ensemble(method: Any, seed: int = 0) -> Any:
    """The method with a made-up ensemble, whose support and text disagree with it."""
    from daptune.methods.ensemble import Ensemble, Mix

    generator = torch.Generator().manual_seed(seed)
    classes, width = len(method.class_names), method.clip.config.embed_dim
    weights = 4 * torch.randn(classes, width, generator=generator)
    bias = torch.randn(classes, generator=generator)
    prototypes = torch.nn.functional.normalize(torch.randn(classes, width, generator=generator), dim=-1)
    known = {"similarity": (-0.1, 0.0, 0.05), "truth": (0.2, 0.5, 0.9)}
    mix = Mix((0.8, 1.2, 0.4), (9.0, 5.0, 0.3), ("a {} picture.",), **known)
    method.ensemble = Ensemble(weights, bias, prototypes, mix)
    return method


@pytest.fixture(scope="session")
def fitted(made_up_backbone: str, paths_and_labels: tuple[list[str], list[str]]):
    """A FewShotClassifier that has learned the three colours; not to be changed."""
    from daptune.classifier import FewShotClassifier

    classifier = FewShotClassifier(
        "coop_vpt",
        made_up_backbone,
        shots=4,
        method_options={"text_tokens": 4, "vision_tokens": 4},
        train_options={"epochs": 6, "batch_size": 6, "lr": 0.02},
    )
    return classifier.fit(*paths_and_labels)


@pytest.fixture(scope="session")
def adapter(fitted, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `fitted` was saved to; not to be changed."""
    return fitted.save(tmp_path_factory.mktemp("saved") / "adapter")


@pytest.fixture(scope="session")
def exact(adapter: Path) -> Any:
    """The made-up adapter in fp32, whatever this machine trains in; not to be changed."""
    from daptune.classifier import load

    return load(adapter, precision="fp32")


@pytest.fixture(scope="session")
def exported(exact: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """It as an fp32 ONNX file; not to be changed."""
    from daptune.export.onnx_file import export_onnx

    return export_onnx(exact, tmp_path_factory.mktemp("exported") / "model.onnx").path


@pytest.fixture(scope="session")
def bench_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a made-up run of two data sets; not to be changed."""
    from .report.made_up import lines, write_run

    return write_run(tmp_path_factory.mktemp("bench") / "run", lines())


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a made-up run of two methods; not to be changed."""
    from .report.made_up import line, write_run

    rows = [line("fewshot", label, "demo", 16, 1, {"test": 0.5}) for label in ("coop", "dapt")]
    return write_run(tmp_path_factory.mktemp("small") / "run", rows)
