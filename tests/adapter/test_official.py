"""Checkpoints of official code, made here under their true names and with the objects that Dassl leaves in them."""

import json
import os
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import daptune
from daptune.adapter.official import import_checkpoint
from daptune.cli import run
from daptune.clip.backbone import Backbone, load_backbone
from daptune.clip.checkpoints.dassl import read_training_state
from daptune.errors import AdapterError, BackboneError, MethodError
from daptune.methods import METHODS

from ..clip import made_up_resnet

NAMES = ("abyssinian", "American_bulldog", "egyptian Mau")


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone("tiny", precision="fp32")


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 0.02


def embedded(backbone: Backbone, prefix: list[int], learned: int, names: tuple[str, ...] = NAMES) -> dict[str, Tensor]:
    """Dassl's buffers: the embeddings of `SOS` and of what follows the learned words, to 77 tokens, in fp16."""
    rows = []
    for name in names:
        text = backbone.tokenizer.encode(name.replace("_", " ") + ".")
        ids = [backbone.tokenizer.sot, *prefix, *text, backbone.tokenizer.eot]
        rows.append(ids + [0] * (77 - len(ids)))
    table = backbone.clip.text.token_embedding.weight[torch.tensor(rows)].half()
    return {"token_prefix": table[:, :1], "token_suffix": table[:, 1 + learned :]}


def official(path: Path, state: dict[str, Tensor], epoch: int = 50) -> Path:
    """What Dassl's save_model writes: the state dict beside an optimizer's and a scheduler's, which holds objects."""
    parameter = nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([parameter], lr=0.002, momentum=0.9)
    parameter.sum().backward()
    optimizer.step()  # which leaves a momentum, in a dict of another kind whose keys are tensors
    successor = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 50)
    content = {
        "state_dict": OrderedDict(state),
        "epoch": epoch,
        "optimizer": optimizer.state_dict(),
        "scheduler": {"successor": successor, "warmup_epoch": 1, "base_lrs": [0.002]},
        "val_result": np.float64(81.5),
    }
    torch.save(content, path)
    return path


def coop(backbone: Backbone, *, shape: tuple[int, ...] = (4,)) -> dict[str, Tensor]:
    width = backbone.clip.config.text_width
    return {"ctx": noise(*shape, width).half(), **embedded(backbone, [0] * shape[-1], shape[-1])}


def dapt(backbone: Backbone) -> dict[str, Tensor]:
    config = backbone.clip.config
    return {
        "vis_ctx": noise(1, 3, config.vision_width, seed=1).half(),
        "txt_ctx": noise(5, config.text_width).half(),
        **embedded(backbone, [0] * 5, 5),
    }


def maple(backbone: Backbone, *, depth: int = 2, phrase: bool = True) -> dict[str, Tensor]:
    config = backbone.clip.config
    prefix = backbone.tokenizer.encode("a photo of a") if phrase else [0, 0]
    state = {"ctx": noise(2, config.text_width).half()}
    layers = ["proj", *(f"compound_prompt_projections.{j}" for j in range(depth - 1))]
    for seed, layer in enumerate(layers):
        state[f"{layer}.weight"] = noise(config.vision_width, config.text_width, seed=10 + seed)
        state[f"{layer}.bias"] = noise(config.vision_width, seed=20 + seed)
    for j in range(depth - 1):
        state[f"compound_prompts_text.{j}"] = noise(2, config.text_width, seed=30 + j)
    state |= embedded(backbone, prefix, 2)
    whole = {f"prompt_learner.{name}": tensor for name, tensor in state.items()}
    return whole | {"image_encoder.conv1.weight": noise(4, 3, 2, 2), "logit_scale": torch.tensor(4.6)}


def test_the_file_is_one_that_torch_itself_refuses(backbone: Backbone, tmp_path: Path) -> None:
    """Otherwise the reader for it would be needless."""
    with pytest.raises(Exception, match="Weights only load failed"):
        torch.load(official(tmp_path / "a", coop(backbone)), weights_only=True)


def test_a_residual_network(tmp_path: Path) -> None:
    """CoOp was published on RN50. Its contexts are read there, by the plain tower on whole texts; DAPT has no place."""
    network = load_backbone(
        made_up_resnet.write_openclip(tmp_path / "w", made_up_resnet.make_tensors()), precision="fp32"
    )
    state = coop(network)
    method = import_checkpoint(official(tmp_path / "a", state), "coop", network, NAMES).method
    text, tokenizer, found = network.clip.text, network.tokenizer, []
    for name in NAMES:
        ids = [*tokenizer.encode(name.replace("_", " ") + "."), tokenizer.eot]
        parts = [text.embed([tokenizer.sot]), state["ctx"].float(), text.embed(ids)]
        found.append(text.encode_embeddings(torch.cat(parts)[None], torch.tensor([5 + len(ids)]))[0])
    expected = torch.nn.functional.normalize(torch.stack(found), dim=-1)
    torch.testing.assert_close(method.text_features(), expected, atol=1e-5, rtol=1e-5)
    with pytest.raises(MethodError, match=r"^`dapt` needs visual tokens; .* has none"):
        import_checkpoint(official(tmp_path / "b", dapt(network)), "dapt", network, NAMES)


@pytest.mark.parametrize("shape", [(4,), (3, 4)], ids=["unified", "class-specific"])
def test_coop(shape: tuple[int, ...], backbone: Backbone, tmp_path: Path) -> None:
    state = coop(backbone, shape=shape)
    path = official(tmp_path / "model.pth.tar-50", state)
    imported = import_checkpoint(path, "coop", backbone, NAMES, {"class_position": "middle"})
    method = imported.method
    assert torch.equal(method.state_dict()["text_prompt"], state["ctx"].float())
    assert method.config.class_position == "middle"  # type: ignore[attr-defined]
    assert imported.source["epoch"] == 50
    other = METHODS["coop"](backbone, NAMES, method.config)
    other.load_state_dict({"text_prompt": state["ctx"].float()})
    with torch.no_grad():
        assert torch.equal(method.text_features(), other.text_features())


def test_dapt(backbone: Backbone, tmp_path: Path) -> None:
    state = dapt(backbone)
    method = import_checkpoint(official(tmp_path / "a", state), "dapt", backbone, NAMES).method
    found = method.state_dict()
    assert torch.equal(found["text_prompt"], state["txt_ctx"].float())
    assert torch.equal(found["vision_prompt"], state["vis_ctx"][0].float())
    images = torch.rand(2, 3, backbone.clip.config.image_size, backbone.clip.config.image_size)
    assert method.logits(images).shape == (2, 3)


@pytest.mark.parametrize(("depth", "phrase"), [(1, True), (2, True), (2, False)])
def test_maple(depth: int, phrase: bool, backbone: Backbone, tmp_path: Path) -> None:
    state = maple(backbone, depth=depth, phrase=phrase)
    method = import_checkpoint(official(tmp_path / "a", state), "maple", backbone, NAMES).method
    found = method.state_dict()
    assert found["text_prompt"].shape == (depth, 2, backbone.clip.config.text_width)
    assert method.config.context_init == ("a photo of a" if phrase else "")  # type: ignore[attr-defined]
    for j in range(depth):
        layer = "proj" if j == 0 else f"compound_prompt_projections.{j - 1}"
        text = "ctx" if j == 0 else f"compound_prompts_text.{j - 1}"
        expected = torch.nn.functional.linear(
            state[f"prompt_learner.{text}"].float(),
            state[f"prompt_learner.{layer}.weight"],
            state[f"prompt_learner.{layer}.bias"],
        )
        assert torch.allclose(method.vision_prompt[j], expected, atol=1e-6)  # type: ignore[index]


def test_only_what_is_learned_is_read(backbone: Backbone, tmp_path: Path) -> None:
    path = official(tmp_path / "a", {f"module.{name}": tensor for name, tensor in maple(backbone).items()}, epoch=5)
    tensors, epoch = read_training_state(path, lambda name: name.startswith("prompt_learner.proj"))
    assert sorted(tensors) == ["prompt_learner.proj.bias", "prompt_learner.proj.weight"]
    assert epoch == 5


def test_a_bare_state_dict_and_one_without_names_are_read(backbone: Backbone, tmp_path: Path) -> None:
    torch.save({"ctx": coop(backbone)["ctx"]}, tmp_path / "a.pt")
    assert import_checkpoint(tmp_path / "a.pt", "coop", backbone, ("any", "names")).source["epoch"] is None
    torch.save({"state_dict": coop(backbone)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert len(import_checkpoint(tmp_path / "old.pt", "coop", backbone, NAMES).method.class_names) == 3


def test_other_class_names_are_noticed(backbone: Backbone, tmp_path: Path) -> None:
    path = official(tmp_path / "a", coop(backbone))
    with pytest.raises(AdapterError, match=r"class 1 is 'beagle' in the list and reads 'american bulldog \.' there"):
        import_checkpoint(path, "coop", backbone, ("abyssinian", "beagle", "egyptian mau"))
    with pytest.raises(AdapterError, match="has 3 classes, 2 names were given"):
        import_checkpoint(path, "coop", backbone, NAMES[:2])


def test_another_backbone_is_noticed(backbone: Backbone, tmp_path: Path, made_up_backbone: str) -> None:
    path = official(tmp_path / "a", coop(backbone))
    other = load_backbone(made_up_backbone, precision="fp32")
    with pytest.raises(AdapterError, match=r"embeddings of width 128, .* has 64"):
        import_checkpoint(path, "coop", other, NAMES)
    with pytest.raises(AdapterError, match=r"embeddings of width 128, .* has 64"):
        import_checkpoint(official(tmp_path / "b", maple(backbone)), "maple", other, NAMES)
    state = coop(backbone)
    state["token_suffix"] = state["token_suffix"] + 0.5
    with pytest.raises(AdapterError, match="class 0 is 'abyssinian' in the list and cannot be read with this backbone"):
        import_checkpoint(official(tmp_path / "c", state), "coop", backbone, NAMES)


def test_a_name_that_stands_twice_is_told_apart_without_another_prompt(
    backbone: Backbone, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """ImageNet's list has "missile" twice; to CLIP the two must stay the same."""
    width = backbone.clip.config.text_width
    state = {"ctx": noise(4, width), **embedded(backbone, [0] * 4, 4, ("missile", "cat", "missile"))}
    path, classes = official(tmp_path / "a", state), tmp_path / "classes.txt"
    classes.write_text("missile\ncat\nmissile\n")
    out = tmp_path / "adapter"
    words = ["import", str(path), "--backbone", "tiny", "--precision", "fp32", "--out", str(out), "--json"]
    assert run([*words, "--classes", str(classes)]) == 0
    method = daptune.load(out).method_
    assert method.class_names == ("missile", "cat", "missile_")
    features = method.text_features()
    assert torch.allclose(features[0], features[2], atol=1e-5)
    assert not torch.allclose(features[0], features[1], atol=1e-2)


@pytest.mark.parametrize(
    ("method", "make", "message"),
    [
        ("dapt", coop, "is not a checkpoint of dapt: expected txt_ctx, vis_ctx"),
        ("maple", coop, "is not a checkpoint of maple: expected proj, found ctx"),
        ("vpt", coop, "no official checkpoint of 'vpt' can be imported. Choose from: coop, dapt, maple"),
    ],
)
def test_the_checkpoint_of_another_method_is_named(
    method: str, make: Callable[[Backbone], dict[str, Tensor]], message: str, backbone: Backbone, tmp_path: Path
) -> None:
    with pytest.raises(AdapterError, match=message):
        import_checkpoint(official(tmp_path / "a", make(backbone)), method, backbone, NAMES)


def test_half_a_maple_is_told(backbone: Backbone, tmp_path: Path) -> None:
    state = maple(backbone)
    del state["prompt_learner.compound_prompt_projections.0.bias"]
    with pytest.raises(AdapterError, match=r"not a complete checkpoint of maple .*compound_prompt_projections.0.bias"):
        import_checkpoint(official(tmp_path / "a", state), "maple", backbone, NAMES)


def test_an_option_that_does_not_fit_is_an_error(backbone: Backbone, tmp_path: Path) -> None:
    path = official(tmp_path / "a", coop(backbone))
    with pytest.raises(MethodError, match="text_prompt"):
        import_checkpoint(path, "coop", backbone, NAMES, {"text_tokens": 7})


class Evil:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self.mark}",)


def test_no_code_is_run_from_a_checkpoint(backbone: Backbone, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    for place, content in enumerate(({"state_dict": coop(backbone), "x": Evil(mark)}, Evil(mark))):
        path = tmp_path / f"{place}.pth.tar"
        torch.save(content, path)
        with pytest.raises(BackboneError, match=r"asks to run (posix|nt)\.system, which no checkpoint"):
            import_checkpoint(path, "coop", backbone, NAMES)
        assert not mark.exists()
    torch.load(path, weights_only=False)  # the file does what it is thought to do
    assert mark.exists()


def test_what_lies_in_torch_and_dassl_is_not_run_either(backbone: Backbone, tmp_path: Path) -> None:
    """Names below torch become empty nodes: this one would download and run a repository."""
    path = tmp_path / "a.pth.tar"
    torch.save({"state_dict": coop(backbone)}, path)
    with zipfile.ZipFile(path) as archive:
        parts = {info.filename: archive.read(info) for info in archive.infolist()}
    name = next(name for name in parts if name.endswith("data.pkl"))
    call = b"ctorch.hub\nload\n(X\x03\x00\x00\x00a/bX\x01\x00\x00\x00ctR"  # torch.hub.load("a/b", "c")
    head, body = parts[name][:2], parts[name][2:]
    parts[name] = head + call + b"0" + body  # called, and its result dropped
    with zipfile.ZipFile(path, "w") as archive:
        for file, content in parts.items():
            archive.writestr(file, content)
    assert "ctx" in read_training_state(path, lambda name: name == "ctx")[0]


@pytest.mark.parametrize("cut", [0, 100, 2000])
def test_a_damaged_checkpoint_is_one_line(cut: int, backbone: Backbone, tmp_path: Path) -> None:
    path = official(tmp_path / "a", coop(backbone))
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(BackboneError) as raised:
        import_checkpoint(path, "coop", backbone, NAMES)
    assert "\n" not in str(raised.value)
    with pytest.raises(BackboneError, match="there is no file"):
        import_checkpoint(tmp_path / "none", "coop", backbone, NAMES)


def test_the_command_makes_an_adapter_that_predicts(
    backbone: Backbone, tmp_path: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = official(tmp_path / "model-best.pth.tar", dapt(backbone))
    classes, out = tmp_path / "classes.txt", tmp_path / "adapter"
    classes.write_text("\n".join(NAMES) + "\n\n")
    words = ["import", str(path), "--method", "dapt", "--backbone", "tiny", "--precision", "fp32", "--out", str(out)]
    assert run([*words, "--classes", str(classes)]) == 0
    assert "vision_prompt 3 x" in capsys.readouterr().out
    record = json.loads((out / "adapter.json").read_text())
    assert record["data"]["imported_from"] == "model-best.pth.tar"
    assert record["class_names"] == list(NAMES)
    loaded = daptune.load(out)
    method = import_checkpoint(path, "dapt", backbone, NAMES).method
    assert torch.equal(loaded.method_.text_features(), method.text_features())
    assert set(loaded.predict(pictures)) <= set(NAMES)
    assert "imported from | model-best.pth.tar, epoch 50" in (out / "README.md").read_text()
    assert run(["show", str(out), "--words", "0"]) == 0
    assert "model-best.pth.tar, epoch 50" in capsys.readouterr().out

    assert run(words) == 2
    assert "give --classes FILE" in capsys.readouterr().err
    classes.write_text("\n")
    assert run([*words, "--classes", str(classes)]) == 2
    assert "expected one class name per line" in capsys.readouterr().err
