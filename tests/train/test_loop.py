"""fit_method on a made-up method: what it learns, what it leaves on disk, and what ends it."""

import errno
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from daptune.data.loader import Batch
from daptune.errors import DataError, Interrupted, TrainingError
from daptune.measured import Measured
from daptune.methods import Method, SupportSet
from daptune.train import History, Progress, TrainConfig, evaluate, fit_method, take_best
from daptune.train.checkpoint import FILE_NAME, read_checkpoint
from daptune.train.loop import grouped
from daptune.train.parallel import Ranks
from daptune.train.run import identity_of
from daptune.train.schedule import learning_rate

from .small import CONFIG, SmallConfig, SmallLoader, SmallMethod, lines, same, small_backbone, train

# --- the loop -------------------------------------------------------------------------------------------------------


def test_it_learns_and_leaves_the_method_ready() -> None:
    before = evaluate_fresh()
    method, history = train(config=replace(CONFIG, epochs=20))
    after = evaluate(method, SmallLoader())
    assert after["accuracy"] > max(0.8, before)
    assert not method.training and len(history.rows) == 20
    assert history.rows[-1].losses["cross_entropy"] < history.rows[0].losses["cross_entropy"]
    assert history.rows[-1].step == 20 * 3  # 6 batches, two a step


def evaluate_fresh() -> float:
    method = SmallMethod()
    method.before_fit(SmallLoader())
    return evaluate(method, SmallLoader())["accuracy"]


@pytest.mark.parametrize("clip_norm", [None, 1.5])
@pytest.mark.parametrize("accumulate", [1, 2, 4])
def test_it_is_plain_gradient_descent(accumulate: int, clip_norm: float | None) -> None:
    """Against the loop written out with plain tensor arithmetic: SGD, momentum, decay, clipping, accumulation.

    An epoch has 6 batches, of which the last has 2 images and not 4; with 4 a step, the last step has 2 batches.
    """
    config = TrainConfig(
        epochs=2, optimizer="sgd", lr=0.3, weight_decay=0.01, schedule="cosine_per_epoch", warmup_lr=0.1,
        accumulate=accumulate, clip_norm=clip_norm,
    )  # fmt: skip
    quiet = SmallConfig(dropout=0.0, average=False)
    method, history = train(method=SmallMethod(quiet), config=config)

    other, loader = SmallMethod(quiet), SmallLoader()
    other.prototypes = method.prototypes
    velocity, lengths, rows = torch.zeros_like(other.prompt), [], []
    for epoch, rate in enumerate((0.1, 0.3)):  # the warm-up, and the highest rate
        batches, sums, right = list(loader.epoch(epoch)), 0.0, 0
        assert [len(labels) for _, labels in batches] == [4, 4, 4, 4, 4, 2]
        for first in range(0, 6, accumulate):
            group = batches[first : first + accumulate]
            slopes = []
            for images, labels in group:
                total = other.losses(images, labels)["total"]
                slopes.append(torch.autograd.grad(total, other.prompt)[0])
                sums += total.item() * len(labels)
                right += int((other.logits(images).argmax(dim=1) == labels).sum())
            g = torch.stack(slopes).mean(dim=0)
            lengths.append(float(g.norm()))
            if clip_norm is not None and lengths[-1] > clip_norm:
                g = g * clip_norm / lengths[-1]
            velocity = 0.9 * velocity + g + 0.01 * other.prompt.detach()
            other.prompt.data -= rate * velocity
        rows.append((sums / 22, right / 22))
    torch.testing.assert_close(method.prompt, other.prompt, atol=1e-4, rtol=1e-4)
    found = [(row.losses["total"], row.accuracy) for row in history.rows]
    assert found == [(pytest.approx(total, rel=1e-4), pytest.approx(right)) for total, right in rows]
    assert min(lengths) < 1.5 < max(lengths)  # so that clipping touches some of the gradients


def test_the_same_seed_gives_the_same_bits_and_another_does_not() -> None:
    first, _ = train()
    torch.rand(5)  # a caller's random numbers must not matter
    second, _ = train()
    third, _ = train(config=replace(CONFIG, seed=6))
    assert same(first.state_dict(), second.state_dict())
    assert not same(first.state_dict(), third.state_dict())


class Drawing(SmallMethod):
    """Notes random numbers that a step draws, and before them those of `before_fit`."""

    def __init__(self) -> None:
        super().__init__()
        self.drawn: list[list[float]] = []

    def before_fit(self, train: SupportSet, val: SupportSet | None = None) -> None:
        self.drawn.append(torch.rand(2).tolist())
        super().before_fit(train, val)

    def losses(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        if self.training:
            self.drawn.append(torch.rand(2).tolist())
        return super().losses(images, labels)


def numbers_of(seed: int, step: int, batches: int = 1) -> list[list[float]]:
    """What `batches` of a step draw, by a generator of torch's own that is seeded with numpy's mix of the two."""
    generator = torch.Generator().manual_seed(int(np.random.SeedSequence((seed, step)).generate_state(1, np.uint64)[0]))
    rows = []
    for _ in range(batches):
        rows.append(torch.rand(2, generator=generator).tolist())
        torch.empty(4, 48).bernoulli_(0.7, generator=generator)  # the dropout
    return rows


def test_every_step_has_random_numbers_of_its_own(tmp_path: Path) -> None:
    """They follow from seed and step alone: the same in another run, and where a run goes on."""
    config = replace(CONFIG, accumulate=1)
    whole = Drawing()
    train(method=whole, config=config)
    assert len(whole.drawn) == 1 + 3 * 6 and len({tuple(row) for row in whole.drawn}) == 19
    assert whole.drawn == [numbers_of(5, step)[0] for step in range(19)]
    again, other = Drawing(), Drawing()
    train(method=again, config=config)
    train(method=other, config=replace(config, seed=6))
    assert again.drawn == whole.drawn and not {*map(tuple, whole.drawn)} & {*map(tuple, other.drawn)}
    first, second = Drawing(), Drawing()
    with pytest.raises(Interrupted):
        train(tmp_path, method=first, config=config, stop=lambda: len(first.drawn) == 9)
    train(tmp_path, method=second, config=config, resume=True)
    assert first.drawn + second.drawn[1:] == whole.drawn and second.drawn[0] == whole.drawn[0]


def test_batches_of_one_step_draw_on() -> None:
    method = Drawing()
    train(method=method, config=replace(CONFIG, epochs=1, accumulate=2))
    assert method.drawn[1:3] == numbers_of(5, 1, batches=2) and len({tuple(row) for row in method.drawn}) == 7


def test_the_global_random_state_is_left_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    train()
    assert torch.equal(torch.rand(3), expected)


def test_a_method_without_gradients_is_done_after_before_fit(tmp_path: Path) -> None:
    method = SmallMethod()
    method.prompt.requires_grad_(False)
    _, history = train(tmp_path, method=method)
    assert history == History() and method.fitted == 1 and method.prototypes is not None and not method.training


def test_progress_tells_every_step() -> None:
    seen: list[Progress] = []
    train(progress=seen.append)
    assert [p.step for p in seen] == list(range(1, 10)) and seen[0].steps == 9
    assert [p.epoch for p in seen] == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert set(seen[0].losses) == {"cross_entropy", "inter", "total"}
    assert all(p.accuracy is not None and 0 <= p.accuracy <= 1 and p.seconds_left >= 0 for p in seen)
    assert seen[0].val_accuracy is None and seen[-1].val_accuracy is not None
    assert seen[-1].seconds_left == 0
    assert [p.lr for p in seen] == [learning_rate(CONFIG.resolved(3), s, 3) for s in range(9)]


def test_what_the_callback_raises_ends_the_run() -> None:
    def pruned(_: Progress) -> None:
        raise StopIteration("pruned")

    method = SmallMethod()
    with pytest.raises(StopIteration, match="pruned"):
        train(method=method, progress=pruned)
    assert not method.training


def test_the_best_epoch_is_kept(tmp_path: Path) -> None:
    """Validation labels that training goes away from: the first epoch stays the best."""
    wrong = SmallLoader(9, seed=1, relabel=1)
    method, history = train(tmp_path, val=wrong, config=replace(CONFIG, epochs=9, patience=2))
    assert len(history.rows) == (history.best_epoch or 0) + 2 < 9
    best = max(history.rows, key=lambda row: (row.val_accuracy, -(row.val_nll or 0)))
    assert best.epoch == history.best_epoch
    found = evaluate(method, wrong)
    assert found["accuracy"] == best.val_accuracy and found["nll"] == best.val_nll
    again, history_again = train(tmp_path, val=wrong, config=replace(CONFIG, epochs=9, patience=2), resume=True)
    assert same(again.state_dict(), method.state_dict()) and history_again == history


def scripted(right: int, sure: float, unsure: float) -> Measured:
    """Nine answers: the first are right, with the probability `sure`, the others wrong, with `unsure`."""
    labels = np.repeat([0, 1, 2], (1, 5, 3))
    shares = np.where(np.arange(9) < right, sure, unsure)
    said = np.where(np.arange(9) < right, labels, (labels + 1) % 3)
    p = np.repeat((1 - shares[:, None]) / 2, 3, axis=1)
    p[np.arange(9), said] = shares
    return Measured(p.astype(np.float32), labels)


@pytest.mark.parametrize("select", ["best_val", "last"])
def test_among_equal_accuracies_the_surer_epoch_is_kept_and_of_equals_the_first(
    select: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The third of six epochs: the second is as often right and less sure, the fourth is the same, the fifth is too
    sure where it is wrong, and the sixth has the lowest loss of all and one right answer fewer."""
    epochs = [(6, 0.7, 0.6), (7, 0.6, 0.6), (7, 0.7, 0.7), (7, 0.7, 0.7), (7, 0.95, 0.95), (6, 0.95, 0.34)]
    nll = [-(n * math.log(p) + (9 - n) * math.log((1 - q) / 2)) / 9 for n, p, q in epochs]
    assert nll[5] < nll[2] == nll[3] < nll[1] < nll[4]
    answers = iter(scripted(*epoch) for epoch in epochs)
    monkeypatch.setattr("daptune.train.loop.evaluate", lambda *_, **__: next(answers))
    after: list[Tensor] = []

    class Noting(SmallMethod):
        def after_epoch(self, epoch: int, epochs: int) -> None:
            super().after_epoch(epoch, epochs)
            after.append(self.prompt.detach().clone())

    method, history = train(method=Noting(SmallConfig(average=False)), config=replace(CONFIG, epochs=6, select=select))
    assert history.best_epoch == 3
    assert [row.val_nll for row in history.rows] == pytest.approx(nll, rel=1e-5)
    assert [row.val_accuracy for row in history.rows] == [n / 9 for n, _, _ in epochs]
    assert torch.equal(history.best["prompt"], after[2]) and not torch.equal(after[2], after[3])
    assert torch.equal(method.prompt, after[2] if select == "best_val" else after[5])


def test_patience_counts_from_the_best_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fourth epoch is the best; those after it are as good and none is better, so that the seventh is the last."""
    right = [5, 4, 5, *[6] * 6]
    answers = iter(scripted(n, 0.6, 0.6) for n in right)
    monkeypatch.setattr("daptune.train.loop.evaluate", lambda *_, **__: next(answers))
    _, history = train(config=replace(CONFIG, epochs=9, patience=3))
    assert [row.val_accuracy for row in history.rows] == [n / 9 for n in right[:7]] and history.best_epoch == 4


def test_the_best_epoch_is_told_beside_the_last() -> None:
    """One training, both selections: what `take_best` leaves is what select="best_val" ends with."""
    wrong = SmallLoader(9, seed=1, relabel=1)
    last, history = train(val=wrong, config=replace(CONFIG, epochs=9, select="last"))
    plain, _ = train(config=replace(CONFIG, epochs=9, select="last"))
    chosen, other = train(val=wrong, config=replace(CONFIG, epochs=9, select="best_val"))
    assert same(last.state_dict(), plain.state_dict()) and history.best_epoch == other.best_epoch
    assert not same(last.state_dict(), chosen.state_dict())
    take_best(last, history, wrong, wrong)
    assert same(last.state_dict(), chosen.state_dict())


def test_of_many_epochs_about_fifty_are_validated() -> None:
    _, history = train(config=replace(CONFIG, epochs=70))
    assert [row.epoch for row in history.rows if row.val_accuracy is not None] == list(range(2, 71, 2))
    _, history = train(config=replace(CONFIG, epochs=51))
    assert [row.epoch for row in history.rows if row.val_accuracy is not None] == [*range(2, 51, 2), 51]


def test_validation_costs_no_more_than_training_where_epochs_are_a_part() -> None:
    """54 epochs of 22 images are 1188, 18 times the 66 for validation: every third epoch, and the last."""
    config = replace(CONFIG, epochs=54, epoch_shots=7)
    _, history = train(config=config, val=SmallLoader(66, batch_size=66, seed=1))
    assert [row.epoch for row in history.rows if row.val_accuracy is not None] == list(range(3, 55, 3))


def test_images_may_be_encoded_once_before_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those to learn from for the number of epochs that the run has, and those for validation for any."""
    method, first, second = SmallMethod(), SmallLoader(), SmallLoader(9, seed=1)
    asked: list[tuple[Any, ...]] = []

    def encoded(method: Method, loader: SmallLoader, epochs: int | None = None) -> SmallLoader:
        asked.append((method, loader, epochs))
        return loader

    monkeypatch.setattr("daptune.train.loop.encoded_once", encoded)
    train(method=method, loader=first, val=second, config=replace(CONFIG, epochs=None, steps=4))
    assert asked == [(method, first, 1), (method, second, None)]  # 4 steps are one epoch of 3, rounded
    asked.clear()
    train(method=method, loader=first, val=None, config=replace(CONFIG, epochs=2, select="last"))
    assert asked == [(method, first, 2)]


class Second(Ranks):
    """The second of two processes, with half of each batch's weight; the first has the same images and gradients."""

    first = False

    def __init__(self) -> None:
        super().__init__()
        self.alike: list[Tensor] = []
        self.whole: list[bool] = []
        self.weights: list[float] = []

    def begin_alike(self, tensors: Iterable[Tensor]) -> None:
        self.alike += tensors

    def share(self, images: Tensor, labels: Tensor, *, whole: bool = False) -> tuple[Tensor, Tensor, float]:
        self.whole.append(whole)
        return images, labels, 0.5

    def mean(self, terms: Mapping[str, Tensor], weight: float) -> dict[str, Tensor]:
        self.weights.append(weight)
        return dict(terms)

    def add_gradients(self, parameters: Iterable[Tensor]) -> None:
        for parameter in parameters:
            parameter.grad *= 2


@pytest.mark.parametrize("whole", [False, True])
def test_a_second_process_learns_what_one_alone_does_and_writes_nothing(
    whole: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Sharing(SmallMethod):
        whole_batch = whole

    alone, expected = train()
    ranks, method, told = Second(), Sharing(), []
    monkeypatch.setattr("daptune.train.loop.Ranks", lambda: ranks)
    _, found = train(tmp_path, method=method, progress=told.append)
    assert list(map(id, ranks.alike)) == list(map(id, [*method.parameters(), *method.buffers()]))
    assert ranks.whole == [whole] * 18 and ranks.weights == [0.5] * 18
    assert same(method.state_dict(), alone.state_dict())
    assert [row.losses for row in found.rows] == [row.losses for row in expected.rows]
    assert not told and not list(tmp_path.iterdir())


def test_a_stop_asked_for_in_another_process_stops_this_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ranks = Second()
    monkeypatch.setattr(ranks, "any", lambda asked: asked or len(ranks.weights) >= 10)
    monkeypatch.setattr("daptune.train.loop.Ranks", lambda: ranks)
    with pytest.raises(Interrupted, match="stopped after step 5 of 9"):
        train(tmp_path)


def test_compiled_graphs_begin_anew_for_each_step_and_validation_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    given, begun = [], []

    @contextmanager
    def compiled(*arguments: Any) -> Iterator[Callable[[], None]]:
        given.append(arguments)
        yield lambda: begun.append(1)

    monkeypatch.setattr("daptune.train.loop.check_compiler", lambda _: None)
    monkeypatch.setattr("daptune.train.loop.compiled_blocks", compiled)
    method, _ = train(config=replace(CONFIG, compile=True))
    assert given == [(method, True)] and len(begun) == 9 + 3 * 3  # 9 images are 3 batches


def test_the_compiler_is_looked_at_first_and_for_the_methods_device(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(device: torch.device) -> None:
        raise TrainingError(f"no compiler for {device}")

    monkeypatch.setattr("daptune.train.loop.check_compiler", refuse)
    method = SmallMethod()
    with pytest.raises(TrainingError, match="no compiler for cpu"):
        train(method=method, config=replace(CONFIG, compile=True))
    assert not method.fitted


def test_without_a_folder_no_image_is_read_for_a_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daptune.train.loop.identity_of", None)
    assert len(train()[1].rows) == 3


def test_best_val_needs_validation_images() -> None:
    with pytest.raises(TrainingError, match="needs validation images"):
        train(val=None)


def test_an_empty_loader_is_an_error() -> None:
    class Empty(SmallLoader):
        def evaluation(self) -> Iterator[Batch]:
            yield from ()

    method = SmallMethod()
    method.before_fit(SmallLoader())
    with pytest.raises(DataError, match="no images"):
        evaluate(method, Empty())


def test_evaluate_puts_the_mode_back_and_keeps_the_order() -> None:
    method = SmallMethod()
    method.before_fit(SmallLoader())
    method.train()
    found = evaluate(method, SmallLoader())
    assert method.training
    assert found["probabilities"].shape == (22, 3) and found["labels"].tolist() == SmallLoader().table.labels.tolist()
    assert abs(found["probabilities"].sum(1) - 1).max() < 1e-6


def test_the_hooks_get_the_images_and_come_when_they_say() -> None:
    """`before_fit` once, with both sets; `after_fit` once, in evaluation mode, with what was chosen put back."""
    calls: list[Any] = []

    class Hooked(SmallMethod):
        def before_fit(self, train: SupportSet, val: SupportSet | None = None) -> None:
            calls.append((train, val))
            super().before_fit(train, val)

        def after_fit(self, train: SupportSet, val: SupportSet | None = None) -> None:
            calls.append((train, val, self.training, self.prompt.detach().clone()))

    images, held = SmallLoader(), SmallLoader(9, seed=1, relabel=1)
    config = replace(CONFIG, epochs=9, patience=2)
    method, history = train(method=Hooked(), loader=images, val=held, config=config)
    assert len(calls) == 2 and calls[0] == (images, held) and calls[1][:3] == (images, held, False)
    assert torch.equal(calls[1][3], history.best["prompt"]) and torch.equal(method.prompt, calls[1][3])
    take_best(method, history, held, images)
    assert calls[2][:2] == (held, images)
    calls.clear()
    fit_method(method, images, TrainConfig(epochs=1))
    assert calls[0] == (images, None) and calls[1][:2] == (images, None)


def test_the_rate_of_a_method_is_taken_where_none_is_given() -> None:
    class Own(SmallMethod):
        default_lr = 0.07

    rates: list[float] = []
    train(method=Own(), config=TrainConfig(epochs=1, schedule="constant"), progress=lambda p: rates.append(p.lr))
    assert set(rates) == {0.07}


@pytest.mark.parametrize(("accumulate", "passes"), [(1, 12), (2, 3), (4, 2)])
def test_batches_of_one_step_share_a_pass_of_the_text_tower(accumulate: int, passes: int) -> None:
    """6 batches; alone in its step, a batch asks for the features twice, in the logits and in a loss."""
    counts = [0]

    class Counting(SmallMethod):
        def logit_weights(self) -> Tensor:
            counts[0] += self.training
            return super().logit_weights()

    train(method=Counting(), config=TrainConfig(epochs=1, accumulate=accumulate), val=None)
    assert counts[0] == passes


def test_a_tensor_that_a_step_does_not_use_stays_as_it_is() -> None:
    """After a step that used it AdamW would move it on, by its averages, if the gradient were zeros and not none."""

    class Seldom(SmallMethod):
        def build(self, generator: torch.Generator) -> None:
            super().build(generator)
            self.offset = nn.Parameter(torch.ones(3))
            self.after: list[Tensor] = []

        def losses(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
            self.after.append(self.offset.detach().clone())
            terms = super().losses(images, labels)
            return terms if self.steps > 1 else terms | {"total": terms["total"] + self.offset.sum()}

    method = Seldom()
    train(method=method, config=TrainConfig(epochs=1, schedule="constant"), val=None)
    assert len(method.after) == 6 and not torch.equal(method.after[0], method.after[1])
    assert all(torch.equal(method.after[1], later) for later in [*method.after[2:], method.offset])


@pytest.mark.parametrize("memory", ["fast", "low"])
def test_the_image_tower_recomputes_while_it_trains_where_asked(memory: str) -> None:
    method, seen = SmallMethod(), []
    tower = method.clip.visual
    before = tower.recompute
    train(method=method, config=replace(CONFIG, memory=memory), progress=lambda _: seen.append(tower.recompute))
    assert set(seen) == {memory == "low"} and not before and not tower.recompute


def test_it_can_be_stopped_while_it_validates(tmp_path: Path, reference: Path) -> None:
    """After the steps of the first epoch; where it goes on, `after_epoch` does not come for that epoch again."""
    at: list[str] = []

    class Watched(SmallLoader):
        def evaluation(self) -> Iterator[Batch]:
            at.append("validation")
            return super().evaluation()

    first, second = SmallMethod(), SmallMethod()
    with pytest.raises(Interrupted, match="stopped after step 3 of 9"):
        train(tmp_path, method=first, val=Watched(9, seed=1), stop=lambda: bool(at))
    assert first.settled == [(1, 3)] and lines(tmp_path) == [] and not first.training
    train(tmp_path, method=second, resume=True)
    assert second.settled == [(2, 3), (3, 3)]
    kept, whole = read_checkpoint(tmp_path), read_checkpoint(reference)
    assert kept is not None and whole is not None and same(kept.tensors, whole.tensors)


@pytest.mark.parametrize(
    ("step", "size", "expected"),
    [
        (0, 1, [4, 4, 4, 4, 4, 2]),
        (0, 4, [16, 6]),
        (1, 4, [6]),
        (2, 3, []),
        (2, 4, []),
        (2, 2, [6]),
        (5, 1, [2]),
        (6, 1, []),
    ],
)
def test_batches_are_grouped_from_a_step_on(step: int, size: int, expected: list[int]) -> None:
    """22 images in 6 batches; behind the last step nothing is asked of the loader."""
    loader = SmallLoader()
    groups = list(grouped(loader, 3, step, size))
    assert [sum(len(labels) for _, labels in group) for group in groups] == expected
    batches = list(loader.epoch(3))[step * size :]
    flat = [images for group in groups for images, _ in group]
    assert len(flat) == len(batches) and all(torch.equal(a, b) for a, (b, _) in zip(flat, batches, strict=True))


def test_behind_the_last_step_the_loader_is_left_alone() -> None:
    class Silent(SmallLoader):
        def epoch(self, epoch: int, start_batch: int = 0) -> Iterator[Batch]:
            raise NotImplementedError

    for step, size in ((6, 1), (3, 2), (2, 3), (2, 4)):  # 6 batches
        assert list(grouped(Silent(), 0, step, size)) == []


# --- on disk --------------------------------------------------------------------------------------------------------


def test_history_is_written_line_by_line(tmp_path: Path) -> None:
    _, history = train(tmp_path)
    assert History.read(tmp_path).rows == history.rows
    assert [row.epoch for row in history.rows] == [1, 2, 3]
    (tmp_path / "history.jsonl").write_text("{}\n")
    with pytest.raises(TrainingError, match="not a history"):
        History.read(tmp_path)


def fingerprint(images: int) -> str:
    return SmallLoader(images).table.fingerprint()


def test_a_finished_run_resumes_to_its_end(tmp_path: Path) -> None:
    method, history = train(tmp_path)
    again, same_history = train(tmp_path, resume=True)
    assert same(method.state_dict(), again.state_dict()) and history == same_history


def test_resuming_where_nothing_is_yet_starts(tmp_path: Path, reference: Path) -> None:
    train(tmp_path / "new" / "folder", resume=True)
    assert len(lines(tmp_path / "new" / "folder")) == 3


def test_a_run_is_not_overwritten(tmp_path: Path) -> None:
    train(tmp_path)
    before = (tmp_path / FILE_NAME).read_bytes()
    with pytest.raises(TrainingError, match="already holds a run; continue it with --resume"):
        train(tmp_path)
    assert (tmp_path / FILE_NAME).read_bytes() == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"config": replace(CONFIG, lr=0.5)}, r"train.lr is 0.01 there and 0.5 now"),
        ({"config": replace(CONFIG, epochs=4)}, r"train.epochs is 3 there and 4 now"),
        ({"method": SmallMethod(SmallConfig(dropout=0.1))}, r"options.dropout is 0.3 there and 0.1 now"),
        ({"method": SmallMethod(classes=4)}, r"classes has 3 entries there and 4 now"),
        ({"loader": SmallLoader(21)}, rf"images.fingerprint is '{fingerprint(22)}' there and '{fingerprint(21)}' now"),
        ({"loader": SmallLoader(seed=3)}, r"images.seed is 0 there and 3 now"),
        (
            {"val": SmallLoader(8, seed=1)},
            rf"validation.fingerprint is '{fingerprint(9)}' there and '{fingerprint(8)}' now",
        ),
    ],
)
def test_resuming_with_other_settings_names_the_first(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    train(tmp_path)
    with pytest.raises(TrainingError, match=words) as caught:
        train(tmp_path, resume=True, **change)
    assert "\n" not in str(caught.value)


def test_how_often_to_save_may_change(tmp_path: Path, reference: Path) -> None:
    with pytest.raises(Interrupted):
        train(tmp_path, stop=lambda: True)
    train(tmp_path, resume=True, config=replace(CONFIG, checkpoint_seconds=60))
    assert same(read_checkpoint(tmp_path).section("best"), read_checkpoint(reference).section("best"))  # type: ignore[union-attr]


def test_resume_needs_a_folder() -> None:
    with pytest.raises(TrainingError, match="folder of the stopped run"):
        train(None, resume=True)


def test_saving_goes_by_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int | None] = []

    def look(progress: Progress) -> None:
        saved = read_checkpoint(tmp_path)
        seen.append(None if saved is None else saved.state["epoch"] * 3 + saved.state["step"])

    train(tmp_path, progress=look, config=replace(CONFIG, checkpoint_seconds=3600))
    # at the callback the step's own save is still to come; before the first step there is nothing to resume
    assert seen == [None, None, None, 3, 3, 3, 6, 6, 6]


# --- ends before the end ---


class Exploding(SmallMethod):
    """A loss term turns bad at a step, or a gradient does while the loss stays finite."""

    def __init__(self, term: str, at: int) -> None:
        super().__init__()
        self.term, self.at = term, at

    def losses(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        terms = super().losses(images, labels)
        if int(self.steps) == self.at:
            bad = terms[self.term] * float("nan")
            terms |= {self.term: bad, "total": terms["total"] + bad}
        return terms


@pytest.mark.parametrize("with_folder", [True, False])
def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_state(tmp_path: Path, with_folder: bool) -> None:
    method = Exploding("inter", at=9)  # 6 batches an epoch, two a step: step 5, in epoch 2
    config = replace(CONFIG, checkpoint_seconds=3600)
    with pytest.raises(TrainingError) as caught:
        train(tmp_path if with_folder else None, method=method, config=config)
    text = str(caught.value)
    assert text.startswith("Training stopped at step 5, epoch 2: inter became nan with learning rate 0.00")
    assert "parameters of step 3 are kept" in text and "--lr (try 0.001), or --precision fp32 instead" in text
    good, _ = train(config=replace(CONFIG, schedule="constant"))  # only to have its shape
    assert method.prompt.isfinite().all() and method.prompt.shape == good.prompt.shape
    if with_folder:
        kept = read_checkpoint(tmp_path)
        assert kept is not None and same(kept.section("method"), method.state_dict())


class BadGradient(SmallMethod):
    """0 * sqrt(0): the loss is finite, its gradient is not."""

    def losses(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        terms = super().losses(images, labels)
        if int(self.steps) == 9:
            terms["total"] = terms["total"] + (self.prompt - self.prompt.detach()).square().sum().sqrt()
        return terms


@pytest.mark.parametrize("seconds", [0.0, 3600.0])
def test_a_gradient_that_is_not_finite_is_never_saved(tmp_path: Path, seconds: float) -> None:
    method = BadGradient()
    with pytest.raises(TrainingError, match=r"prompt is not finite|became nan"):
        train(tmp_path, method=method, config=replace(CONFIG, checkpoint_seconds=seconds))
    kept = read_checkpoint(tmp_path)
    assert kept is not None and kept.section("method")["prompt"].isfinite().all()
    assert method.prompt.isfinite().all()


def test_a_full_disk_keeps_the_last_checkpoint(
    tmp_path: Path, reference: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync, calls = os.fsync, iter(range(1000))

    def full(handle: int) -> None:
        if next(calls) >= 12:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TrainingError, match=r"disk is full: .*checkpoint.safetensors was not written"):
        train(tmp_path)
    monkeypatch.undo()
    assert {p.name for p in tmp_path.iterdir()} == {FILE_NAME, "history.jsonl"}
    train(tmp_path, resume=True)
    assert same(read_checkpoint(tmp_path).tensors, read_checkpoint(reference).tensors)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("change", "same"),
    [({"compile": True}, False), ({"augment_on": "device"}, False), ({"memory": "low"}, True)],
    ids=str,
)
def test_a_run_is_another_where_its_bits_may_be_others(change: dict[str, Any], same: bool) -> None:
    one, other = (
        identity_of(SmallMethod(), SmallLoader(), None, config) for config in (CONFIG, replace(CONFIG, **change))
    )
    assert (one == other) == same


def test_every_hook_has_a_default(tmp_path: Path) -> None:
    """A method needs to say what it learns and how, no more; without `cross_entropy` no accuracy is told."""

    class Bare(Method):
        name, title, year = "bare", "Bare", 2026

        def build(self, generator: torch.Generator) -> None:
            self.w = nn.Parameter(torch.zeros(3, 48))

        def text_features(self) -> Tensor:
            return self.w

        def losses(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
            return {"total": nn.functional.cross_entropy(images.flatten(1) @ self.w.T, labels)}

    seen: list[Progress] = []
    bare = Bare(small_backbone(), ["a", "b", "c"])
    history = fit_method(bare, SmallLoader(), TrainConfig(epochs=2), run_dir=tmp_path, progress=seen.append)
    assert len(history.rows) == 2 and history.rows[0].accuracy is None and seen[0].accuracy is None


def test_a_validation_loss_that_is_not_finite_stops_too(tmp_path: Path) -> None:
    class Blind(SmallMethod):
        def logits(self, images: Tensor) -> Tensor:
            return super().logits(images) * (1.0 if self.training else float("nan"))

    with pytest.raises(TrainingError, match="stopped at step 3, epoch 1: the validation loss became nan"):
        train(tmp_path, method=Blind())
    assert lines(tmp_path) == []


def test_after_epoch_comes_once_an_epoch_before_it_is_validated() -> None:
    method = SmallMethod()
    validated: list[int] = []

    class Watched(SmallLoader):
        def evaluation(self) -> Iterator[Batch]:
            validated.append(len(method.settled))
            return super().evaluation()

    train(method=method, config=TrainConfig(epochs=3), val=Watched(9, seed=1))
    assert method.settled == [(1, 3), (2, 3), (3, 3)] and validated == [1, 2, 3]
    torch.testing.assert_close(method.prompt.detach(), method.sum / 6)
