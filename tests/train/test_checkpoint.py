"""One file, replaced atomically, checked when read, without pickle."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from daptune.errors import TrainingError
from daptune.train.checkpoint import (
    FILE_NAME,
    Checkpoint,
    pack_optimizer,
    read_checkpoint,
    saving,
    unpack_optimizer,
)


def example() -> Checkpoint:
    checkpoint = Checkpoint({"method": "dapt", "classes": ["猫", "dog"]}, {"epoch": 3, "sums": {"total": 0.1}})
    tensors = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(5), "none": torch.zeros(0, 4)}
    checkpoint.put("method", tensors)
    checkpoint.put("optimizer", {"a/momentum_buffer": torch.randn(2, 3).to(torch.bfloat16)})
    return checkpoint


def test_it_comes_back_the_same(tmp_path: Path) -> None:
    checkpoint = example()
    checkpoint.write(tmp_path)
    back = read_checkpoint(tmp_path)
    assert back is not None and (back.identity, back.state) == (checkpoint.identity, checkpoint.state)
    assert back.tensors.keys() == checkpoint.tensors.keys()
    for name, tensor in checkpoint.tensors.items():
        assert torch.equal(back.tensors[name], tensor) and back.tensors[name].dtype == tensor.dtype
    assert set(back.section("method")) == {"a", "b", "none"} and back.section("best") == {}
    assert [p.name for p in tmp_path.iterdir()] == [FILE_NAME]


def test_it_is_not_changed_by_what_comes_after(tmp_path: Path) -> None:
    tensor = torch.zeros(3)
    checkpoint = Checkpoint({}, {})
    checkpoint.put("method", {"a": tensor, "view": tensor[::2]})
    tensor += 1
    assert checkpoint.section("method")["a"].tolist() == [0, 0, 0]
    checkpoint.write(tmp_path)  # views and shared memory are no trouble


def test_none_where_there_is_none(tmp_path: Path) -> None:
    assert read_checkpoint(tmp_path) is None


def flip_a_bit(content: bytes) -> bytes:
    return content[:-3] + bytes([content[-3] ^ 4]) + content[-2:]


def edit_the_header(content: bytes) -> bytes:
    return content.replace(b'\\"epoch\\": 3', b'\\"epoch\\": 4')


@pytest.mark.parametrize(
    "damage",
    [
        lambda c: c[: len(c) // 2],
        lambda c: c[:4],
        lambda c: b"",
        lambda c: b"PK\x03\x04 not a checkpoint" * 40,
        lambda c: os.urandom(400),
        lambda c: c + b"more",
        flip_a_bit,
        edit_the_header,
    ],
    ids=["half", "start", "empty", "zip", "noise", "longer", "bit", "header"],
)
def test_a_damaged_file_is_one_line_and_is_left(tmp_path: Path, damage: Any) -> None:
    example().write(tmp_path)
    path = tmp_path / FILE_NAME
    content = damage(path.read_bytes())
    assert content != path.read_bytes()
    path.write_bytes(content)
    with pytest.raises(TrainingError, match=r"is damaged.*move it away and train again without --resume") as caught:
        read_checkpoint(tmp_path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    assert path.read_bytes() == content


def test_every_truncation_is_noticed(tmp_path: Path) -> None:
    example().write(tmp_path)
    path = tmp_path / FILE_NAME
    content = path.read_bytes()
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        with pytest.raises(TrainingError):
            read_checkpoint(tmp_path)


def test_a_foreign_safetensors_file(tmp_path: Path) -> None:
    safetensors.torch.save_file({"a": torch.zeros(1)}, tmp_path / FILE_NAME)
    with pytest.raises(TrainingError, match="is not a checkpoint of daptune; move it away"):
        read_checkpoint(tmp_path)


def test_a_newer_format(tmp_path: Path) -> None:
    header = {"daptune": json.dumps({"format": 99}), "sha256": ""}
    safetensors.torch.save_file({"a": torch.zeros(1)}, tmp_path / FILE_NAME, header)
    with pytest.raises(TrainingError, match=r"format 99 .* pip install -U daptune"):
        read_checkpoint(tmp_path)


def test_a_folder_in_its_place(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).mkdir()
    with pytest.raises(TrainingError, match=FILE_NAME):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS])
def test_a_disk_that_fails_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    example().write(tmp_path)
    before = (tmp_path / FILE_NAME).read_bytes()

    def fail(*_: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, call, fail)
    words = "The disk is full" if code in (errno.ENOSPC, errno.EDQUOT) else os.strerror(code)
    with pytest.raises(TrainingError, match=words) as caught:
        Checkpoint({}, {"epoch": 4}).write(tmp_path)
    assert "\n" not in str(caught.value) and FILE_NAME in str(caught.value)
    assert (tmp_path / FILE_NAME).read_bytes() == before and [p.name for p in tmp_path.iterdir()] == [FILE_NAME]


def test_an_interrupt_while_writing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        example().write(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="cannot be written"):
        example().write(tmp_path / "no")
    with pytest.raises(TrainingError, match="cannot be written"), saving(tmp_path / "no"):
        raise PermissionError(errno.EACCES, "Permission denied")


@pytest.mark.parametrize("kind", ["sgd", "sgd_plain", "adamw"])
def test_the_optimizer_goes_on_where_it_was(kind: str) -> None:
    def make() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
        module[0].bias.requires_grad_(False)
        groups = [{"params": [module[1].weight, module[1].bias]}, {"params": [module[0].weight], "lr": 0.3}]
        if kind == "adamw":
            return module, torch.optim.AdamW(groups, lr=0.1)
        return module, torch.optim.SGD(groups, lr=0.1, momentum=0.9 if kind == "sgd" else 0.0)

    def step(module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        module(torch.ones(1, 3)).square().sum().backward()
        optimizer.step()

    module, optimizer = make()
    step(module, optimizer)
    packed = pack_optimizer(optimizer, module)
    assert all("/" in name for name in packed) and (bool(packed) is (kind != "sgd_plain"))
    copies, before = ({name: t.clone() for name, t in packed.items()} for _ in range(2))
    other, resumed = make()
    other.load_state_dict(module.state_dict())
    unpack_optimizer(copies, resumed, other)
    for _ in range(3):
        step(module, optimizer)
        step(other, resumed)
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), other.parameters(), strict=True))
    assert all(torch.equal(copies[name], before[name]) for name in copies)  # what was read is still as it was
