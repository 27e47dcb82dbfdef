"""Adapters of one backbone: shared passes equal the adapter alone, and memory is bounded."""

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import daptune
from daptune.adapter.store import make_record, save_adapter
from daptune.clip.backbone import Backbone
from daptune.errors import AdapterError
from daptune.serve import pool as pool_module
from daptune.serve.engine import Answer
from daptune.serve.limits import Refused
from daptune.serve.pool import AdapterPool

from ..conftest import scores_by_hand
from .conftest import CLASSES, JOINED, METHOD_OF, pixels_of, png, pool_of


def test_images_of_different_adapters_share_a_pass_and_equal_the_adapter_alone(
    small: Backbone, shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = pool_of(small, shelf)
    keys = {name: pool.open(name).batch_key for name in METHOD_OF}
    assert keys["prompted"] == keys["prompted-too"] and keys["deep"] == keys["coupled"]
    assert len(set(keys.values())) == 4
    passes: list[int] = []
    encode = small.clip.encode_image

    def counted(images: torch.Tensor, *arguments: object, **options: object) -> torch.Tensor:
        passes.append(len(images))
        return encode(images, *arguments, **options)  # type: ignore[arg-type]

    for names in (["prompted", "prompted-too"], ["deep", "coupled"], ["words"], ["pixels"]):
        jobs = [(name, png(seed)) for seed in range(3) for name in names]
        monkeypatch.setattr(small.clip, "encode_image", counted)
        passes.clear()
        images = [pixels_of(small, data) for _, data in jobs]
        found = pool.run([pool.open(name) for name, _ in jobs], images)
        assert passes == [len(jobs)]
        monkeypatch.undo()
        for (name, data), mine in zip(jobs, found, strict=True):
            assert isinstance(mine, Answer) and mine.probabilities.shape == (len(CLASSES.get(name, "123")),)
            path = tmp_path / "alone.png"
            path.write_bytes(data)
            classifier = daptune.load(shelf / name, small)
            np.testing.assert_allclose(mine.probabilities, classifier.predict_proba([path])[0], atol=1e-5, rtol=0)
            assert mine.known == (classifier.predict_known([path])[0] if name in JOINED else None)
            scores = scores_by_hand(pool.open(name).method, small.preprocess.normalize(pixels_of(small, data))[None])
            powers = np.exp(scores[0] / 1.5)
            np.testing.assert_allclose(mine.probabilities, powers / powers.sum(), atol=1e-5)
            assert (pool.open(name).method.ensemble is not None) == (name in JOINED)
        if names[0] == "prompted":  # the same image and classes: a prompt that did nothing would show
            assert np.abs(np.subtract(found[0].probabilities, found[1].probabilities)).max() > 1e-3


def test_the_zero_shot_classifier_of_an_adapter(small: Backbone, shelf: Path) -> None:
    pool = pool_of(small, shelf)
    beside = pool.open("deep", zero_shot=True)
    assert beside.batch_key == pool.open("words").batch_key and list(beside.classes) == CLASSES["deep"]
    plain = daptune.METHODS["zero_shot"](small, CLASSES["deep"]).eval()
    image = pixels_of(small, png(3))
    with torch.inference_mode():
        expected = plain.logits(small.preprocess.normalize(image).unsqueeze(0)).softmax(-1)[0]
    (found,) = pool.run([beside], [image])
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-5, rtol=0)


def test_both_use_the_names_of_the_prompts_and_answer_with_labels(small: Backbone, tmp_path: Path) -> None:
    names = {"1": ("red", "tomato"), "2": ("cat",)}
    method = daptune.METHODS["coop"](small, names).eval()
    save_adapter(tmp_path / "named", method, make_record(method, small))
    (pool := AdapterPool(small)).add(tmp_path / "named", "named")
    image = pixels_of(small, png(3))
    pixels = small.preprocess.normalize(image).unsqueeze(0)
    for zero_shot, reference in ((False, method), (True, daptune.METHODS["zero_shot"](small, names).eval())):
        served = pool.open("named", zero_shot=zero_shot)
        (found,) = pool.run([served], [image])
        with torch.inference_mode():
            expected = reference.logits(pixels).softmax(-1)[0]
        assert isinstance(found, Answer) and found.known is None
        np.testing.assert_allclose(found.probabilities, expected, atol=1e-5, rtol=0)
        assert list(served.classes) == ["1", "2"]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Folders of the adapters that were read from disk."""
    found: list[Path] = []
    load = pool_module.load_adapter

    def counted(folder: Path, backbone: Backbone) -> Any:
        found.append(folder)
        return load(folder, backbone)

    monkeypatch.setattr(pool_module, "load_adapter", counted)
    return found


def test_the_least_recently_used_leave_memory_and_come_back(small: Backbone, shelf: Path, reads: list[Path]) -> None:
    pool = pool_of(small, shelf, max_loaded=2)
    assert pool.loaded == 0 and not any(each.loaded for each in pool.adapters())
    first = pool.open("deep")
    pool.open("words")
    assert pool.open("deep") is first and len(reads) == 2
    pool.open("prompted")  # words was used longest ago
    assert {each.name for each in pool.adapters() if each.loaded} == {"deep", "prompted"}
    assert pool.open("deep") is first
    pool.open("words")
    assert pool.loaded == 2 and len(reads) == 4


def test_many_threads_read_an_adapter_once(small: Backbone, shelf: Path, reads: list[Path]) -> None:
    pool = pool_of(small, shelf)
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(pool.open("words"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(reads) == 1 and len({id(each) for each in found}) == 1


def test_adapters_are_read_in_threads_that_end(small: Backbone, shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that torch has computed in would slow the passes of the server's own (`daptune.serve.threads`)."""
    used: list[threading.Thread] = []
    load = pool_module.load_adapter

    def seen(*arguments: Any) -> Any:
        used.append(threading.current_thread())
        return load(*arguments)

    monkeypatch.setattr(pool_module, "load_adapter", seen)
    pool = pool_of(small, shelf)
    pool.open("prompted")
    pool.try_out(shelf / "words", "words")
    assert len(used) == 2 and not any(thread.is_alive() for thread in used)


def test_an_adapter_that_is_slow_to_read_keeps_no_other_waiting(
    small: Backbone, shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool, begun, go_on, load = pool_of(small, shelf), threading.Event(), threading.Event(), pool_module.load_adapter

    def slow(folder: Path, backbone: Backbone) -> Any:
        if folder.name == "words":
            begun.set()
            assert go_on.wait(60)
        return load(folder, backbone)

    monkeypatch.setattr(pool_module, "load_adapter", slow)
    reader = threading.Thread(target=pool.open, args=("words",))
    reader.start()
    assert begun.wait(60)
    pool.open("deep")
    assert {each.name for each in pool.adapters() if each.loaded} == {"deep"}
    go_on.set()
    reader.join(60)
    assert {each.name for each in pool.adapters() if each.loaded} == {"deep", "words"}


def test_an_adapter_of_another_backbone_is_refused_with_both_hashes(small: Backbone, folder: Path) -> None:
    pool = AdapterPool(small)
    record = json.loads((folder / "words" / "adapter.json").read_text())
    record["backbone"] |= {"name": "other", "sha256": "f" * 64}
    (folder / "words" / "adapter.json").write_text(json.dumps(record))
    with pytest.raises(AdapterError, match=f"'other' with sha256 {'f' * 12}.*{small.sha256[:12]}"):
        pool.add(folder / "words", "words")
    pool.add(folder / "deep", "deep")
    assert [each.name for each in pool.adapters()] == ["deep"]


def test_names_are_taken_once_and_removal_is_at_once(small: Backbone, folder: Path) -> None:
    pool = pool_of(small, folder)
    with pytest.raises(AdapterError, match="already an adapter named 'deep'"):
        pool.add(folder / "words", "deep")
    pool.open("deep")
    pool.remove("deep")
    for what in (pool.open, pool.remove, pool.folder):
        with pytest.raises(Refused, match="no adapter named 'deep'"):
            what("deep")
    assert pool.loaded == 0 and (folder / "deep").is_dir()


def test_a_replaced_adapter_is_read_anew(small: Backbone, folder: Path) -> None:
    pool = pool_of(small, folder)
    before = pool.open("words")
    shutil.rmtree(folder / "words")
    shutil.copytree(folder / "deep", folder / "words")
    pool.add(folder / "words", "words", replace=True)
    assert pool.open("words") is not before and len(pool.open("words").classes) == 4


def test_one_adapter_that_fails_leaves_the_others_results(small: Backbone, shelf: Path) -> None:
    pool = pool_of(small, shelf)
    good, bad = pool.open("prompted"), pool.open("prompted-too")
    image = pixels_of(small, png())
    expected = pool.run([good], [image])[0]
    bad.method.logits = lambda images: images @ images  # type: ignore[assignment,method-assign]
    found, failed = pool.run([good, bad], [image, image])
    assert isinstance(failed, RuntimeError)
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-6)  # type: ignore[union-attr]


def test_an_adapter_alone_is_encoded_once_also_where_it_judges(
    small: Backbone, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A method whose passes are its own, with an ensemble: features serve the answer and the similarity."""
    pool = pool_of(small, folder)
    served = pool.open("words")
    passes: list[int] = []
    encode = type(served.method).encode_images
    monkeypatch.setattr(type(served.method), "shares_image_tower", False)
    monkeypatch.setattr(
        type(served.method), "encode_images", lambda self, images: passes.append(len(images)) or encode(self, images)
    )
    image = pixels_of(small, png(4))
    (found,) = pool.run([served], [image])
    assert isinstance(found, Answer) and found.known is not None and passes == [1]


def test_adapters_say_how_many_images_they_know(small: Backbone, shelf: Path) -> None:
    found = {each.name: each.known_images for each in pool_of(small, shelf).adapters()}
    assert found == {name: 3 if name in JOINED else 0 for name in METHOD_OF}
