"""Every method as a graph: what onnxruntime makes of it is what torch makes of it, at batches that were not traced."""

from dataclasses import replace
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from daptune.clip.tokenizer import Tokenizer
from daptune.errors import MethodError
from daptune.export.graph import LARGEST, TRACED_BATCH, folded, trace
from daptune.methods import METHODS, Method, make_config

from ..clip.test_model import CONFIG, made_up_clip
from ..conftest import scores_by_hand, with_ensemble
from ..methods.conftest import NAMES, MadeUp, make_pictures

NEED_TEXT_TOWER = {"cocoop"}
EXPORTED = [name for name in METHODS if name not in NEED_TEXT_TOWER]
CODE = {name: (METHODS[name].logits, METHODS[name].image_features, METHODS[name].encode) for name in EXPORTED}
DIFFERENT = list(dict(zip(CODE.values(), CODE, strict=True)).values())
"""One method of all whose graph is computed by the same functions, and differs in constants alone."""


@pytest.fixture(scope="module")
def shallow() -> Any:
    """A made-up CLIP of one layer: the exporter takes its time for each."""
    sizes = replace(CONFIG, context_length=77, vocab_size=49408, vision_layers=1, text_layers=1)
    return MadeUp(made_up_clip(sizes), Tokenizer())


def learned(name: str, backbone: Any) -> Method:
    method = METHODS[name](backbone, NAMES, make_config(name, {}))
    method.before_fit(make_pictures(len(NAMES), 2))
    method.after_epoch(1, 1)
    return method.eval()


@pytest.mark.parametrize("name", DIFFERENT)
def test_the_file_answers_as_torch_does(name: str, shallow: Any) -> None:
    method = learned(name, shallow)
    model = trace(folded(method), temperature=2.0)
    assert not [each.name for each in model.graph.initializer if "token_embedding" in each.name]
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for batch in (1, 3):
        assert batch != TRACED_BATCH
        images = torch.randn(batch, 3, 32, 32, generator=torch.Generator().manual_seed(batch))
        with torch.no_grad():
            expected = method.logits(images)
        logits, probabilities = map(torch.from_numpy, session.run(None, {"images": images.numpy()}))
        torch.testing.assert_close(logits, expected, atol=1e-4, rtol=2e-6)  # 17 units of float32: gda's reach 80
        torch.testing.assert_close(probabilities, (expected / 2).softmax(-1), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["dapt", "clip_adapter"])
def test_the_file_of_an_ensemble_answers_as_torch_does(name: str, shallow: Any) -> None:
    """With one image tower, of as many nodes as without the ensemble and a few more; the similarity to known images
    is the largest cosine to a class mean."""
    method = learned(name, shallow)
    nodes = len(trace(folded(method), temperature=1.0).graph.node)
    model = trace(folded(with_ensemble(method)), temperature=2.0)
    assert len(model.graph.node) < nodes + 20
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    expected = scores_by_hand(method, images)
    assert [each.name for each in session.get_outputs()] == ["logits", "probabilities", "similarity"]
    logits, probabilities, similarity = session.run(None, {"images": images.numpy()})
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    with torch.no_grad():
        z, means = method.encode(images).double().numpy(), method.ensemble.prototypes.double().numpy()
    cosines = z @ means.T / np.sqrt((z**2).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(similarity, cosines.max(axis=1), atol=1e-5)
    powers = np.exp(expected / 2)
    np.testing.assert_allclose(probabilities, powers / powers.sum(axis=1, keepdims=True), atol=1e-4)
    with torch.no_grad():
        assert np.abs(method.logits(images).numpy() - expected).max() > 0.1


def test_without_known_images_there_is_no_similarity(shallow: Any) -> None:
    """As with one image a class, and after a change of classes."""
    method = with_ensemble(learned("dapt", shallow)).with_classes(["sea", "meadow"])
    assert [each.name for each in trace(folded(method), temperature=1.0).graph.output] == ["logits", "probabilities"]


@pytest.mark.parametrize("name", EXPORTED)
def test_what_is_traced_is_the_method(name: str, shallow: Any) -> None:
    method = learned(name, shallow)
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(folded(method).logits(images), method.logits(images), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", sorted(NEED_TEXT_TOWER))
def test_a_method_that_needs_the_text_tower_says_so(name: str, shallow: Any) -> None:
    with pytest.raises(MethodError, match=f"{name} needs the text tower for every image") as caught:
        trace(folded(learned(name, shallow)), 1.0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["dapt", "zero_shot", "tip_adapter"])
def test_folding_leaves_the_method_as_it_was(name: str, shallow: Any) -> None:
    method = learned(name, shallow)
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():  # so were the features that a classifier has cached
        before = method.logits(images)
    weights = shallow.clip.visual.proj.clone()
    copy = folded(method, half=True)
    assert copy.clip.visual.proj.dtype == torch.float16 and shallow.clip.visual.proj.dtype == torch.float32
    with torch.no_grad():
        torch.testing.assert_close(copy.logits(images), before, atol=0.5, rtol=0)
        assert torch.equal(method.logits(images), before) and torch.equal(shallow.clip.visual.proj, weights)
    with pytest.raises(MethodError, match="text tower"):
        copy.clip.encode_text(torch.tensor([[1, 2, 49407]]))


def test_a_tower_that_no_file_can_hold_is_refused(shallow: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daptune.export.graph.LARGEST", 1000)
    with pytest.raises(MethodError, match=r"one ONNX file holds 2\.1 GB; choose --dtype fp16"):
        trace(folded(learned("zero_shot", shallow)), 1.0)
    assert LARGEST < 2**31
