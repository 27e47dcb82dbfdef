"""Towers whose blocks are compiled learn the same up to rounding, and are what they were when the training is over."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from daptune.clip.backbone import Backbone, load_backbone
from daptune.clip.blocks import Transformer
from daptune.data import ImageLoader, read_source
from daptune.errors import TrainingError
from daptune.methods import METHODS, make_config
from daptune.train import TrainConfig, fit_method
from daptune.train.compiling import check_compiler, compiled_blocks

# torch looks at it while it compiles, and hides the warning, which is an error in these tests
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")

CASES: list[tuple[str, dict[str, Any], list[str]]] = [
    ("dapt", {}, ["_continue", "_keep", "whole", "read"]),
    ("dapt", {"memory": "low", "accumulate": 2}, ["_continue", "_keep", "whole", "read"]),
    ("dapt", {"class_specific": True}, ["causal", "whole", "read"]),
    ("maple", {"memory": "low"}, ["_continue", "_keep", "whole", "read"]),
    ("clip_lora", {"dropout": 0.0}, ["_continue", "_keep", "whole", "read"]),  # compiled, it would draw other numbers
    ("two_sfs", {}, ["_continue", "_keep", "whole", "read"]),
]
"""Shallow and deep prompts, matrices and norms, recomputation, accumulation; and the parts that are compiled."""


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Any:
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("pictures")
    for name in ("cat", "dog", "bird"):
        (folder / name).mkdir()
        for number in range(4):
            Image.fromarray(rng.integers(0, 255, (40, 40, 3), np.uint8)).save(folder / name / f"{number}.png")
    return read_source(folder).train


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone("tiny", precision="fp32")


def learned(name: str, table: Any, backbone: Backbone, *, compile: bool, **settings: Any) -> dict[str, Tensor]:
    training = {key: value for key, value in settings.items() if key in ("memory", "accumulate")}
    options = {key: value for key, value in settings.items() if key not in training}
    method = METHODS[name](backbone, table.class_names, make_config(name, options))
    train = ImageLoader(table, backbone.preprocess, 4, seed=3, augment=True, shuffle=True, workers=0)
    # SGD: AdamW divides by the size of a gradient, so that the rounding of one that is almost 0 would be all of it
    config = TrainConfig(epochs=2, optimizer="sgd", lr=0.05, compile=compile, **training)
    fit_method(method, train, config)
    return method.state_dict()


def compared(name: str, settings: Any, table: Any, backbone: Backbone) -> bool:
    """Whether the same bits were learned; they may differ by rounding."""
    plain, compiled = (learned(name, table, backbone, compile=compile, **settings) for compile in (False, True))
    for key, tensor in plain.items():
        torch.testing.assert_close(compiled[key], tensor, atol=1e-5, rtol=1e-4)
    return all(torch.equal(compiled[key], tensor) for key, tensor in plain.items())


@pytest.mark.slow
def test_the_same_is_learned_up_to_rounding(table: Any, backbone: Backbone) -> None:
    assert not compared("dapt", {"memory": "low"}, table, backbone)  # other bits: it was compiled indeed


@pytest.mark.parametrize(("name", "settings", "parts"), CASES, ids=str)
def test_what_is_compiled_learns_the_same(
    name: str, settings: Any, parts: list[str], table: Any, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As above, up to the code that is generated, which takes long: the graphs are run as they were captured."""
    before = {key: tensor.clone() for key, tensor in backbone.clip.state_dict().items()}
    names = [key for key, _ in backbone.clip.named_modules()]
    real, made = torch.compile, set()

    def capture(part: Any, **options: Any) -> Any:
        made.add(part.__name__)
        return real(part, **(options | {"backend": "aot_eager", "fullgraph": True}))

    monkeypatch.setattr(torch, "compile", capture)
    compared(name, settings, table, backbone)
    assert made == {*parts, "neg"}
    after = backbone.clip.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[key], before[key]) for key in before)
    assert [key for key, _ in backbone.clip.named_modules()] == names
    assert not any("run" in vars(module) for module in backbone.clip.modules())


def test_an_error_inside_puts_the_towers_back(backbone: Backbone) -> None:
    method: Any = SimpleNamespace(backbone=backbone)
    with pytest.raises(KeyError), compiled_blocks(method, True):
        assert "run" in vars(backbone.clip.visual.transformer) and "run" in vars(backbone.clip.text.transformer)
        raise KeyError
    assert not any("run" in vars(module) for module in backbone.clip.modules())


@pytest.mark.parametrize(("device", "mode"), [("cuda", "reduce-overhead"), ("cpu", None)])
def test_cuda_graphs_are_for_cuda(device: str, mode: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[dict[str, Any]] = []
    monkeypatch.setattr(torch, "compile", lambda part, **options: made.append(options) or part)
    marks: list[int] = []
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: marks.append(1))
    towers = [Transformer(8, 1, 1, 8, "gelu") for _ in range(2)]
    clip = SimpleNamespace(device=torch.device(device), modules=lambda: [torch.nn.Identity(), *towers])
    method: Any = SimpleNamespace(backbone=SimpleNamespace(clip=clip))
    with compiled_blocks(method, True) as begin:
        for tower in towers:
            assert [tower.run(max, 1, 2), tower.run(max, 3, 2), tower.run(min, 1, 2)] == [2, 3, 1]
        begin()
    assert made == [{"dynamic": False, "mode": mode}] * 2  # each part once
    assert marks == [1] * (device == "cuda")


def test_without_a_compiler_it_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("backend='inductor' raised:\nand so on") from OSError("No working C++ compiler found.\nMore")

    monkeypatch.setattr(torch, "compile", lambda *_, **__: fails)
    with pytest.raises(TrainingError) as caught:
        check_compiler(torch.device("cpu"))
    words = "expected a C++ compiler (such as g++) to build for cpu, found: No working C++ compiler found; install it"
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_compiled_block_keeps_as_little_as_a_plain_one() -> None:
    """Its MLP keeps one tensor of the hidden width for the backward, as `QuickGELUMLP` does."""
    from daptune.clip.blocks import Block

    block = Block(16, 2, 64, "quick_gelu").requires_grad_(False)
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.1)
    torch.compiler.reset()  # shapes of other tests count towards the limit, beyond which nothing is compiled
    kept: list[tuple[int, ...]] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tuple(tensor.shape))
        return tensor

    x = torch.randn(2, 5, 16, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        torch.compile(Block.forward, dynamic=False, fullgraph=True)(block, x).sum().backward()
    numbers = 2 * 5 * 64
    assert sum(int(np.prod(shape)) == numbers for shape in kept) == 1
