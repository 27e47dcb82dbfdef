"""The yardstick under benchmarks/ computes what daptune computes; the harness measures it in processes of their own."""

import json
import re
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks import features, measure, reference, run, table, waiting, workload
from daptune.clip.model import CLIP, CLIPConfig
from daptune.methods import METHODS

SMALL = workload.VIT_B16 | {
    "embed_dim": 16,
    "image_size": 32,
    "vision_width": 32,
    "vision_layers": 3,
    "vision_heads": 2,
    "vision_mlp": 64,
    "vocab_size": workload.EOT + 1,
    "text_width": 24,
    "text_layers": 3,
    "text_heads": 3,
    "text_mlp": 48,
}


def test_reference_and_dapt_agree_on_losses_and_gradients() -> None:
    state, names = workload.weights(size=SMALL), workload.class_tokens(7)
    clip = CLIP(CLIPConfig(**SMALL))
    clip.load_state_dict(state)
    backbone = SimpleNamespace(clip=clip, tokenizer=workload.MadeUpTokenizer(names))
    config = METHODS["dapt"].config_class(text_tokens=4, vision_tokens=3, inter_weight=0.3, intra_weight=0.2)
    ours = METHODS["dapt"](backbone, [str(c) for c in range(7)], config)
    images, labels = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0)), torch.arange(5)
    ours.prototypes = torch.randn(7, 16, generator=torch.Generator().manual_seed(1))
    found = ours.losses(images, labels)
    prompts = [p.detach().clone().requires_grad_() for p in (ours.text_prompt, ours.vision_prompt)]
    expected = reference.dapt_losses(
        reference.ReferenceCLIP(state, SMALL), *prompts, names, ours.prototypes, images, labels,
        inter_weight=0.3, intra_weight=0.2,
    )  # fmt: skip
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-5)
    gradients = torch.autograd.grad(found["total"], [ours.text_prompt, ours.vision_prompt])
    for a, b in zip(gradients, torch.autograd.grad(expected["total"], prompts), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5 * float(b.abs().max()), rtol=1e-4)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("coop", {}),
        ("vpt", {"vision_depth": 1}),
        ("cocoop", {}),
        ("maple", {}),
        ("tcp", {}),
        ("mmrl", {}),
        ("two_sfs", {}),
        ("plot", {"official_stop": True, "global_weight": 1.0}),
    ],
)
def test_steps_of_other_methods_agree_with_the_reference(method: str, options: dict[str, Any]) -> None:
    state, names = workload.weights(size=SMALL), workload.class_tokens(7)
    clip = CLIP(CLIPConfig(**SMALL))
    clip.load_state_dict(state)
    backbone = SimpleNamespace(clip=clip, tokenizer=workload.MadeUpTokenizer(names))
    ours = METHODS[method](backbone, [str(c) for c in range(7)], METHODS[method].config_class(**options))
    tensors = {name: tensor.requires_grad_() for name, tensor in workload.learned(method, SMALL).items()}
    ours.train().load_state_dict({**ours.state_dict(), **tensors})
    images, labels = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0)), torch.arange(5)
    found = ours.losses(images, labels)["total"]
    found.backward()
    step = measure.reference_step(method, tensors, names, images, labels, SMALL)
    for _ in range(2):  # the first repetition of PLOT's reference finds where the next one's backward starts
        for tensor in tensors.values():
            tensor.grad = None
        torch.testing.assert_close(found, step(), atol=1e-5, rtol=1e-5)
    assert {name for name, parameter in ours.named_parameters() if parameter.grad is not None} == tensors.keys()
    for name, parameter in ours.named_parameters():
        if name not in tensors:
            continue
        expected = tensors[name].grad
        assert expected.any()
        torch.testing.assert_close(parameter.grad, expected, atol=1e-5 * float(expected.abs().max()), rtol=1e-4)


@pytest.mark.parametrize("name", ["gda", *features.METHODS])
def test_methods_on_stored_features_learn_what_the_official_formulas_give(name: str) -> None:
    sizes = 7, 3
    plain, ours = (
        run() for run in (features.closed_form(*sizes) if name == "gda" else features.by_steps(name, *sizes))
    )
    assert plain.abs().max() > 0
    # the reference of ProLIP adds small steps to a large matrix in float32
    torch.testing.assert_close(
        ours, plain, atol=(0.02 if name == "prolip" else 1e-4) * float(plain.abs().max()), rtol=0
    )


def test_useful_operations_of_one_image_forward() -> None:
    """Counted by hand for ViT-B/16: 11 whole blocks at 213 tokens, keys and values of the last, its class token."""
    width, tokens = 768, 1 + 16 + 196
    block = 2 * tokens * 12 * width**2 + 4 * tokens**2 * width
    last = 2 * tokens * 2 * width**2 + 2 * 10 * width**2
    patches = 2 * 196 * 3 * 16**2 * width
    assert run.useful_operations({"batch": 1, "backward": False}) == 11 * block + last + patches


def test_useful_operations_of_methods_count_contexts_and_what_learns() -> None:
    """One class: PLOT has four contexts of 16 tokens and reads every patch, CoCoOp one of 4 an image, DAPT one. The
    towers of 2SFS run back as far as those of VPT."""
    text = {m: run.useful_operations({"classes": 1, "method": m, "batch": 0}) for m in ("plot", "cocoop", "maple")}
    assert text["plot"] == 4 * run.useful_operations({"classes": 1}) and text["cocoop"] == 0 < text["maple"]
    assert run.useful_operations({"classes": 1, "method": "cocoop", "batch": 8}) > 8 * text["maple"]
    width, patches = 768, 196
    images = {m: run.useful_operations({"batch": 1, "method": m}) for m in ("plot", "cocoop")}
    assert images["plot"] - images["cocoop"] == 2 * patches * 10 * width**2  # queries, output and MLP of the last block
    both = {tokens: run.useful_operations({"batch": 1, "method": "two_sfs", "backward": tokens}) for tokens in (0, 1)}
    embedding = 2 * patches * 3 * 16**2 * width
    assert both[1] - embedding == 2 * (both[0] - embedding)


def test_useful_operations_of_tokens_that_join_at_a_middle_block() -> None:
    """One image, no text to speak of: TCP's tower runs forward once; MMRL's runs forward once as it is, and its upper
    seven blocks with five tokens more, forward and back, whose last reads six tokens."""
    text = {m: run.upper_operations({"classes": 3, "method": m, "batch": 0}) for m in ("tcp", "mmrl")}
    one = {m: run.upper_operations({"classes": 3, "method": m, "batch": 1}) - text[m] for m in ("tcp", "mmrl")}
    assert one["tcp"] == run.useful_operations({"batch": 1, "backward": False, "tokens": 0})
    width, tokens = 768, 202
    upper = 6 * (2 * tokens * 12 * width**2 + 4 * tokens**2 * width) + 2 * (2 * tokens + 6 * 10) * width**2
    assert one["mmrl"] == one["tcp"] + 2 * upper
    assert text["mmrl"] < text["tcp"]


@pytest.mark.slow
def test_harness_measures_a_row_in_processes_of_its_own() -> None:
    run.settings.update(threads=1, clock="processor", precisions=["fp32", "bf16"])
    rates = {"fp32_gflops": 100.0, "bf16_gflops": 100.0}
    rows = run.benchmark("text-10", 1, rates, only_ours=False)
    assert [row["precision"] for row in rows] == ["fp32", "bf16"]
    exact = rows[0]
    assert exact["differences"]["features"] < 1e-5 and exact["differences"]["context"] < 1e-4
    assert exact["ratio"] > 1 and exact["ours"]["peak_gb"] < exact["reference"]["peak_gb"]
    assert run.line(exact).startswith("| text-10 | fp32 |")


def test_reference_in_pieces_finds_the_same_gradient() -> None:
    """The first repetition finds where the backward of the next one's pieces starts."""
    names, prompts = workload.class_tokens(7), torch.zeros(2, SMALL["vision_width"])
    clip, prototypes = reference.ReferenceCLIP(workload.weights(size=SMALL), SMALL), torch.zeros(7, 16)
    context = torch.randn(4, SMALL["text_width"], generator=torch.Generator().manual_seed(1), requires_grad=True)
    images, labels = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0)), torch.arange(5)
    whole = reference.dapt_losses(clip, context, prompts, names, prototypes, images, labels)["total"]
    (expected,) = torch.autograd.grad(whole, context)
    pieces = measure.Pieces()
    for _ in range(2):
        context.grad = None
        parts = [partial(clip.text_features, context, names[first : first + 3]) for first in range(0, 7, 3)]
        text = torch.cat(pieces.features(parts))
        found = reference.dapt_losses(clip, context, prompts, names, prototypes, images, labels, text=text)["total"]
        found.backward()
    torch.testing.assert_close(found, whole)
    assert expected.any()
    torch.testing.assert_close(context.grad, expected, atol=1e-5 * float(expected.abs().max()), rtol=1e-4)


def test_useful_operations_of_frozen_features_are_those_of_one_pass() -> None:
    assert run.useful_operations({"row": "zero_shot", "classes": 9}) * 2 == run.useful_operations(
        {"row": "text", "classes": 9, "tokens": 4}
    )
    assert run.useful_operations({"row": "files", "images": 3}) < run.useful_operations(
        {"row": "vision", "batch": 3, "backward": False}
    )


def test_the_page_has_the_figures_of_the_results_it_names() -> None:
    page = (run.ROOT / "docs/performance.md").read_text()
    (name,) = re.findall(r"\[All\s+figures\]\(\.\./(benchmarks/results/\S+\.json)\)", page)
    rows = json.loads(Path(run.ROOT, name).read_text())["rows"]
    assert table.LABELS.keys() == run.TABLE.keys()
    (later,) = re.findall(r"\]\(\.\./(benchmarks/results/\S+-steps\.json)\)", page)
    newer = json.loads(Path(run.ROOT, later).read_text())["rows"]
    since = {row["name"] for row in newer}
    assert {row["name"] for row in rows} == {*run.TABLE, "accuracy", "import", "help"} - since
    for part in (rows, newer):
        assert "\n".join(table.table(part)) in page


def test_a_fit_that_was_ended_counts_its_other_epochs_at_their_rate() -> None:
    lines = ["daptune: vpt 2/20: 0:40 left, accuracy 50 %", "daptune: vpt: starting", "daptune: warning: 3/4 of them"]
    found = [waiting.EPOCH.match(line) for line in lines]
    assert found[0] and (found[0][1], found[0][2]) == ("2", "20") and found[1:] == [None, None]
    assert waiting.estimate([(10.0, 1, 20), (12.0, 2, 20), (16.0, 4, 20)]) == 16 + 16 * 2


def test_the_page_on_waiting_has_the_figures_of_its_results() -> None:
    page = (run.ROOT / "docs/waiting.md").read_text()
    (name,) = re.findall(r"\[all\s+figures\]\(\.\./(benchmarks/results/\S+\.json)\)", page)
    rows = json.loads(Path(run.ROOT, name).read_text())["rows"]
    fits = {re.sub(r"fit (\w+), .*", r"\1", row): found for row, found in rows.items() if row.startswith("fit ")}
    lines = re.findall(r"^\| (.*?) \| (~?) ?([\d,]+) \|", page, flags=re.MULTILINE)
    shown = {method: (mark, figure) for about, mark, figure in lines for method in re.findall(r"`(\w+)`", about)}
    assert shown.keys() == fits.keys()
    for method, (mark, figure) in shown.items():
        seconds, whole = fits[method]["seconds"], fits[method]["whole"]
        assert (mark == "") == whole
        assert min(seconds) - 1 <= int(figure.replace(",", "")) <= max(seconds) + 1, method
