"""A folder of small adapters of several methods on one made-up backbone, and clients of servers in this process."""

import io
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("fastapi", reason="needs daptune[serve]")

from starlette.testclient import TestClient

from daptune.adapter.store import make_record, save_adapter
from daptune.clip.backbone import Backbone, load_backbone
from daptune.data.images import decode
from daptune.methods import METHODS, make_config
from daptune.serve.app import make_app
from daptune.serve.limits import Limits
from daptune.serve.pool import AdapterPool

from ..conftest import with_ensemble

HOST = "http://127.0.0.1:8000"
METHOD_OF: dict[str, tuple[str, dict[str, Any]]] = {
    "prompted": ("dapt", {"text_tokens": 3, "vision_tokens": 2}),
    "prompted-too": ("coop_vpt", {"text_tokens": 2, "vision_tokens": 2}),
    "deep": ("vpt", {"vision_tokens": 2}),
    "coupled": ("maple", {"prompt_depth": 2}),
    "words": ("coop", {"text_tokens": 2}),
    "pixels": ("vp", {}),
}
JOINED = ("prompted-too", "coupled", "words")
"""Those with an ensemble."""
CLASSES = {"words": ["a", "b"], "deep": ["dog", "cat", "bird", "fish"]}


def png(seed: int = 0, size: tuple[int, int] = (40, 36)) -> bytes:
    """A picture of noise as a file."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def pixels_of(backbone: Backbone, data: bytes) -> np.ndarray:
    """An image file as it waits for its batch, (R, R, 3)."""
    return np.asarray(backbone.preprocess.crop(decode(data)))


def files(*contents: bytes) -> list[tuple[str, tuple[str, bytes, str]]]:
    """Files of a multipart request."""
    return [("files", (f"{number}.png", content, "image/png")) for number, content in enumerate(contents)]


@pytest.fixture(scope="session")
def small(made_up_backbone: str) -> Backbone:
    """The backbone that all adapters of these tests share."""
    return load_backbone(made_up_backbone, precision="fp32")


@pytest.fixture(scope="session")
def shelf(small: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of adapters as METHOD_OF says; not to be changed."""
    folder = tmp_path_factory.mktemp("shelf")
    for seed, (name, (method, options)) in enumerate(METHOD_OF.items()):
        classes = CLASSES.get(name, ["red", "green", "blue"])
        made = METHODS[method](small, classes, make_config(method, options), seed=seed)
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.mul_(5)
        if name in JOINED:
            with_ensemble(made, seed)
        save_adapter(folder / name, made, make_record(made, small, temperature=1.5))
    return folder


@pytest.fixture
def folder(shelf: Path, tmp_path: Path) -> Path:
    """A copy of the shelf that a test may write to."""
    return Path(shutil.copytree(shelf, tmp_path / "adapters"))


def pool_of(small: Backbone, folder: Path, **options: Any) -> AdapterPool:
    """A pool of every adapter in a folder."""
    pool = AdapterPool(small, **options)
    for place in sorted(folder.iterdir()):
        if (place / "adapter.json").is_file():
            pool.add(place, place.name)
    return pool


Start = Callable[..., TestClient]


@pytest.fixture
def start(small: Backbone, folder: Path) -> Iterator[Start]:
    """Starts a server of the folder in this process: start(limits, **options of make_app) -> its client."""
    opened: list[TestClient] = []

    def begin(limits: Limits | None = None, **options: Any) -> TestClient:
        app = make_app(options.pop("engine", None) or pool_of(small, folder), limits, **{"folder": folder, **options})
        client = TestClient(app, base_url=HOST, raise_server_exceptions=False)
        opened.append(client)
        client.__enter__()
        return client

    yield begin
    for client in opened:
        client.__exit__(None, None, None)
