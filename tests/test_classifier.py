"""The scikit-learn contract, every form of images and labels, and what happens with bad ones."""

import copy
import signal
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone, is_classifier
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score

import daptune
from daptune.classifier import FewShotClassifier
from daptune.data import read_source
from daptune.data.sources import table_from_lists
from daptune.data.table import ImageTable
from daptune.errors import DataError, Interrupted, MethodError, TrainingError
from daptune.evaluate import zero_shot
from daptune.methods.ensemble import Ensemble

from .conftest import CLASSES, COLOURS, save_picture, scores_by_hand

QUICK: dict[str, Any] = {"epochs": 2, "batch_size": 6}


def quick(backbone: Any, method: str = "coop", **changes: Any) -> FewShotClassifier:
    options: dict[str, Any] = {"shots": 2, "method_options": {"text_tokens": 2}, "train_options": QUICK}
    return FewShotClassifier(method, backbone, **(options | changes))


CHECKS = (
    "check_estimator_cloneable", "check_estimator_tags_renamed", "check_valid_tag_types", "check_estimator_repr",
    "check_no_attributes_set_in_init", "check_estimators_unfitted", "check_do_not_raise_errors_in_init_or_set_params",
    "check_mixin_order", "check_parameters_default_constructible", "check_get_params_invariance", "check_set_params",
)  # fmt: skip


@pytest.mark.parametrize("name", CHECKS)
def test_scikit_learns_own_checks_pass_where_they_apply(name: str) -> None:
    """Those that need no data.

    All others fit tables of numbers that scikit-learn makes: rows of features (n, f), sparse, complex or 3-dimensional
    ones, one row, one column, NaN. Images are none of them, as the tags say, by which `check_estimator` leaves these
    checks out. What they check of `fit` (it returns self, forgets earlier fits, changes no parameter and gives the same
    for the same seed) is tested below with images.
    """
    checks = pytest.importorskip("sklearn.utils.estimator_checks")
    if not hasattr(checks, name):  # scikit-learn 1.6 divided some of them anew
        pytest.skip("this scikit-learn has no such check")
    getattr(checks, name)("FewShotClassifier", FewShotClassifier("zero_shot", "tiny"))


def test_the_constructor_only_stores() -> None:
    options = {"text_tokens": -1}
    classifier = FewShotClassifier("no such method", "no such backbone", shots=-3, method_options=options)
    assert classifier.get_params()["method_options"] is options
    assert classifier.set_params(shots=5).shots == 5
    other = clone(classifier)
    assert other is not classifier and other.get_params() == classifier.get_params()
    assert is_classifier(classifier)


def test_nothing_works_before_fit(tmp_path: Path) -> None:
    classifier = FewShotClassifier()
    for call in (
        lambda: classifier.predict([]),
        lambda: classifier.predict_proba([]),
        lambda: classifier.score([], []),
        lambda: classifier.save(tmp_path / "x"),
        lambda: classifier.with_classes(["a", "b"]),
    ):
        with pytest.raises(NotFittedError):
            call()


def test_it_learns_colours(fitted: FewShotClassifier, paths_and_labels: tuple[list[str], list[str]]) -> None:
    paths, labels = paths_and_labels
    assert list(fitted.classes_) == sorted(CLASSES)
    assert fitted.score(paths, labels) > 0.6
    probabilities = fitted.predict_proba(paths)
    assert probabilities.shape == (30, 3)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    assert list(fitted.predict(paths)) == list(fitted.classes_[probabilities.argmax(axis=1)])
    assert len(fitted.history_.rows) == 6
    assert fitted.train_table_.counts().tolist() == [4, 4, 4]


@pytest.mark.parametrize("temperature", [0.25, 4.0])
def test_probabilities_are_divided_by_the_temperature(
    exact: FewShotClassifier, paths_and_labels: tuple[list[str], list[str]], temperature: float
) -> None:
    """softmax(scores / temperature), written out in numpy; the answers stay what they were."""
    paths = paths_and_labels[0][:7]
    classifier = copy.copy(exact)
    classifier.record_ = replace(exact.record_, temperature=temperature)
    pictures = torch.stack([exact.backbone_.preprocess(Image.open(path).convert("RGB")) for path in paths])
    scaled = scores_by_hand(exact.method_, pictures) / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    found = classifier.predict_proba(paths)
    np.testing.assert_allclose(found, powers / powers.sum(axis=1, keepdims=True), atol=1e-5)
    plain = exact.predict_proba(paths)
    assert abs(found - plain).max() > 0.01 and list(classifier.predict(paths)) == list(exact.predict(paths))
    surer = found.max(axis=1) > plain.max(axis=1)
    assert surer.all() if temperature < 1 else not surer.any()


def blurred(paths_and_labels: Any) -> ImageTable:
    """Validation images of which every fifth has another class's label, so that sure answers are wrong."""
    paths, labels = paths_and_labels
    mixed = [CLASSES[(CLASSES.index(label) + (n % 5 == 0)) % 3] for n, label in enumerate(labels)]
    return table_from_lists(paths, mixed, label_names=sorted(CLASSES))


@pytest.mark.parametrize("ensemble", ["auto", "none"])
def test_validation_images_set_the_temperature(
    ensemble: str, made_up_backbone: str, paths_and_labels: Any, tmp_path: Path
) -> None:
    """The likeliest one, which the adapter keeps; statistics of known images are those at this temperature."""
    val = blurred(paths_and_labels)
    options = {"train_options": {"epochs": 12, "batch_size": 6, "lr": 0.05}, "precision": "fp32", "shots": None}
    options |= {"ensemble": ensemble, "method_options": {"text_tokens": 4}}
    plain = FewShotClassifier("coop", made_up_backbone, calibrate="none", **options).fit(*paths_and_labels, val=val)
    assert plain.record_.temperature == 1 and plain.calibration_ is None and "calibration" not in plain.record_.metrics
    warm = FewShotClassifier("coop", made_up_backbone, **options).fit(*paths_and_labels, val=val)
    drawn = warm.val_table_
    assert drawn is not None and len(drawn) == 30
    found = warm.calibration_
    assert found is not None and found.images == 30 and warm.record_.metrics["calibration"] == asdict(found)
    pictures = torch.stack([warm.preprocess(Image.open(path).convert("RGB")) for path in drawn.images])
    scores = scores_by_hand(plain.method_, pictures)
    losses = []
    for t in (grid := np.exp(np.linspace(np.log(0.05), np.log(20), 2000))):
        powers = np.exp((scores - scores.max(axis=1, keepdims=True)) / t)
        losses.append(-np.log(powers[np.arange(30), drawn.labels] / powers.sum(axis=1)).mean())
    best = grid[np.argmin(losses)]
    assert found.temperature == pytest.approx(best, rel=5e-3) and warm.record_.temperature == found.temperature != 1
    powers = np.exp((scores - scores.max(axis=1, keepdims=True)) / found.temperature)
    p = powers / powers.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(warm.predict_proba(drawn.images), p, atol=1e-4)
    if ensemble == "auto":
        np.testing.assert_allclose(warm.truth, np.sort(p[np.arange(30), drawn.labels]), atol=1e-4)
        assert warm.truth != plain.truth
    again = daptune.load(warm.save(tmp_path / "warm"))
    assert again.record_.temperature == found.temperature and again.truth == warm.truth
    assert (again.calibrate, daptune.load(plain.save(tmp_path / "plain")).calibrate) == ("auto", "none")
    other = warm.with_classes(["sea", "meadow"])  # the temperature belongs to the old classes
    assert other.record_.temperature == 1 and other.truth == () and "calibration" not in other.record_.metrics


def test_without_validation_images_there_is_no_temperature(fitted: FewShotClassifier) -> None:
    assert fitted.calibration_ is None and fitted.record_.temperature == 1 and fitted.record_.metrics == {}


def test_the_paper_has_no_temperature(made_up_backbone: str, paths_and_labels: Any) -> None:
    paper = quick(made_up_backbone, preset="paper").fit(*paths_and_labels, val=blurred(paths_and_labels))
    assert paper.val_table_ is not None and paper.calibration_ is None and paper.record_.temperature == 1


def test_fit_returns_self_and_forgets_the_earlier_fit(
    made_up_backbone: str, paths_and_labels: tuple[list[str], list[str]]
) -> None:
    paths, labels = paths_and_labels
    classifier = quick(made_up_backbone)
    assert classifier.fit(paths, labels) is classifier
    first = classifier.method_
    two = [n for n, label in enumerate(labels) if label != "red"]
    classifier.fit([paths[n] for n in two], [labels[n] for n in two])
    assert classifier.method_ is not first
    assert list(classifier.classes_) == ["blue_thing", "green thing"]
    with pytest.raises(MethodError):
        classifier.set_params(method="nonsense").fit(paths, labels)
    with pytest.raises(NotFittedError):
        classifier.predict(paths)


def test_the_same_seed_gives_the_same_bits(
    made_up_backbone: str, paths_and_labels: tuple[list[str], list[str]]
) -> None:
    states = [quick(made_up_backbone, "dapt").fit(*paths_and_labels).method_.state_dict() for _ in range(2)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    other = quick(made_up_backbone, "dapt", seed=2).fit(*paths_and_labels).method_.state_dict()
    assert not torch.equal(other["text_prompt"], states[0]["text_prompt"])


def test_every_form_of_images_gives_the_same(
    fitted: FewShotClassifier, paths_and_labels: tuple[list[str], list[str]]
) -> None:
    paths = paths_and_labels[0][:4]
    expected = fitted.predict_proba(paths)
    pictures = [Image.open(path) for path in paths]
    arrays = np.stack([np.asarray(picture) for picture in pictures])
    for images in (
        [Path(path) for path in paths],
        tuple(paths),
        np.array(paths),
        pictures,
        arrays,
        list(arrays),
        [Path(path).read_bytes() for path in paths],
        (path for path in paths),
    ):
        np.testing.assert_allclose(fitted.predict_proba(images), expected, atol=1e-5)


def test_integer_labels_come_back_as_integers(
    made_up_backbone: str, paths_and_labels: tuple[list[str], list[str]], tmp_path: Path
) -> None:
    paths, labels = paths_and_labels
    numbers = np.array([{"blue_thing": 7, "green thing": 30, "red": 5}[label] for label in labels])
    classifier = quick(made_up_backbone).fit(paths, numbers)
    assert classifier.classes_.tolist() == [5, 7, 30]
    assert classifier.method_.class_names == ("5", "7", "30")
    assert set(classifier.predict(paths).tolist()) <= {5, 7, 30}
    again = daptune.load(classifier.save(tmp_path / "a"))
    assert again.predict(paths).tolist() == classifier.predict(paths).tolist()
    named = quick(made_up_backbone, class_names=["red", "blue", "green"]).fit(paths, numbers % 3)
    assert named.classes_.tolist() == [0, 1, 2]
    assert named.method_.class_names == ("red", "blue", "green")
    assert 0 <= named.score(paths, numbers % 3) <= 1


def test_a_folder_is_a_source(made_up_backbone: str, pictures: Path) -> None:
    classifier = quick(made_up_backbone, shots=None).fit(pictures)
    assert len(classifier.train_table_) == 30
    assert 0 <= classifier.score(pictures) <= 1
    assert len(classifier.predict(pictures / "red")) == 10
    assert quick(made_up_backbone).fit(read_source(pictures).train).train_table_.counts().tolist() == [2, 2, 2]


def test_a_folder_of_test_images_alone_is_scored_and_not_fitted(fitted: FewShotClassifier, pictures: Path) -> None:
    plain = fitted.score(pictures)
    (style := pictures.parent / "style").mkdir()
    pictures.rename(style / "val")
    assert fitted.score(style) == plain
    (style / "val").rename(style / "test")
    assert fitted.score(style) == plain
    with pytest.raises(DataError, match="found none"):
        fitted.score(read_source(style, training=False).train)
    with pytest.raises(DataError, match=r"found test images alone; add a train split, or give .*test itself"):
        FewShotClassifier(backbone=fitted.backbone_).fit(style)


def test_grid_search_and_cross_validation_over_paths(
    made_up_backbone: str, paths_and_labels: tuple[list[str], list[str]]
) -> None:
    paths, labels = paths_and_labels
    grid = {"method": ["zero_shot", "coop"], "shots": [1, 2]}
    base = quick(made_up_backbone, method_options=None)
    search = GridSearchCV(base, grid, cv=2, error_score="raise").fit(paths, labels)
    assert search.best_estimator_.predict(paths[:2]).shape == (2,)
    assert len(search.cv_results_["params"]) == 4
    assert cross_val_score(base.set_params(method="zero_shot"), paths, labels, cv=3).shape == (3,)


def test_save_and_load_predict_the_same(
    fitted: FewShotClassifier, adapter: Path, paths_and_labels: tuple[list[str], list[str]]
) -> None:
    paths = paths_and_labels[0]
    loaded = daptune.load(adapter)
    np.testing.assert_array_equal(loaded.predict_proba(paths), fitted.predict_proba(paths))
    assert loaded.predict(paths).tolist() == fitted.predict(paths).tolist()
    refit = clone(loaded).fit(*paths_and_labels)
    assert all(
        torch.equal(value, fitted.method_.state_dict()[name]) for name, value in refit.method_.state_dict().items()
    )


def test_with_classes_keeps_the_prompts(fitted: FewShotClassifier, tmp_path: Path) -> None:
    other = fitted.with_classes(["sea", "meadow", "fire", "night"])
    assert other.classes_.tolist() == ["sea", "meadow", "fire", "night"]
    assert fitted.classes_.tolist() == sorted(CLASSES)
    picture = Image.new("RGB", (40, 40), COLOURS["red"])
    assert other.predict_proba([picture]).shape == (1, 4)
    again = daptune.load(other.save(tmp_path / "new"))
    np.testing.assert_array_equal(again.predict_proba([picture]), other.predict_proba([picture]))
    assert torch.equal(other.method_.text_prompt, fitted.method_.text_prompt)


def test_with_classes_answers_by_words_and_prompts(exact: FewShotClassifier, paths_and_labels: Any) -> None:
    """Scores are those of the same templates filled with the new names, and of the learned prompts: nothing of the
    training images or of the old classes is left."""
    names = ["sea", "meadow"]
    other, mix = exact.with_classes(names), exact.record_.ensemble
    pictures = torch.stack([exact.preprocess(Image.open(path).convert("RGB")) for path in paths_and_labels[0][:5]])
    text = zero_shot(exact.backbone_, names, mix["templates"]).text_features().double().numpy()
    with torch.no_grad():
        z = other.method_.encode(pictures).double().numpy()
        learned = other.method_.logits(pictures).double().numpy()
    unit = z / np.sqrt((z**2).sum(axis=1, keepdims=True))
    scores = mix["factors"][0] * unit @ text.T + mix["factors"][2] * learned
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    np.testing.assert_allclose(
        other.probabilities(pictures.numpy()), powers / powers.sum(axis=1, keepdims=True), atol=2e-3
    )
    kept = other.record_.ensemble
    assert kept["a"] == [mix["a"][0], 0, mix["a"][2]] and kept["templates"] == mix["templates"]
    plain = exact.method_.ensemble.mix
    assert plain.a[1] > 0 and exact.record_.ensemble == mix  # the old one is as it was


@pytest.mark.parametrize("changes", [{"ensemble": "none"}, {"preset": "paper"}])
def test_without_an_ensemble(changes: dict[str, Any], made_up_backbone: str, paths_and_labels: Any) -> None:
    """The answer is that of the learned prompts; a loaded classifier fits again as it was fitted."""
    classifier = quick(made_up_backbone, precision="fp32", **changes).fit(*paths_and_labels)
    assert classifier.method_.ensemble is None and classifier.record_.ensemble == {}
    pictures = torch.stack([classifier.preprocess(Image.open(path).convert("RGB")) for path in paths_and_labels[0][:5]])
    with torch.no_grad():
        expected = classifier.method_.logits(pictures).softmax(-1).numpy()
    np.testing.assert_allclose(classifier.probabilities(pictures.numpy()), expected, atol=1e-6)


def test_a_loaded_classifier_fits_again_as_it_was_fitted(
    made_up_backbone: str, paths_and_labels: Any, tmp_path: Path
) -> None:
    for number, (changes, parts) in enumerate(
        (({"preset": "paper"}, ("none", ())), ({"templates": ["one {}.", "{}!"]}, ("auto", ("one {}.", "{}!"))))
    ):
        first = quick(made_up_backbone, precision="fp32", **changes).fit(*paths_and_labels)
        again = daptune.load(first.save(tmp_path / str(number)))
        assert (again.ensemble, again.templates) == parts
        again.fit(*paths_and_labels)
        images = paths_and_labels[0][:7]
        np.testing.assert_array_equal(again.predict_proba(images), first.predict_proba(images))


def test_the_ensemble_is_put_where_the_backbone_is(
    exact: FewShotClassifier, paths_and_labels: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is computed on the CPU, and without a GPU here only the move can be seen."""
    moved: list[torch.device] = []
    monkeypatch.setattr(Ensemble, "to", lambda ensemble, device: moved.append(device) or ensemble)
    method = quick(exact.backbone_).fit(*paths_and_labels).method_
    assert moved == [method.device] and method.ensemble is not None
    monkeypatch.undo()
    assert method.ensemble.to("meta").weights.is_meta and method.ensemble.bias.is_meta


@pytest.mark.parametrize("count", [3, 6])
def test_images_that_do_not_differ_give_probabilities_all_the_same(count: int) -> None:
    """Three classes of the same image, in which rounding errors are the only difference, or of nearly the same."""
    picture = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    images = [picture.copy() for _ in range(count)]
    for number, image in enumerate(images):
        image[number, 0, 0] ^= count == 6
    uneven = {"epochs": 1, "batch_size": 2}  # batches of different sizes round differently
    found = quick("tiny", shots=None, precision="fp32", train_options=uneven).fit(images, np.arange(count) % 3)
    p = found.predict_proba([picture, 255 - picture])
    assert np.isfinite(p).all() and np.allclose(p.sum(axis=1), 1)


def test_with_classes_is_refused_where_it_cannot_be(
    made_up_backbone: str, paths_and_labels: tuple[list[str], list[str]]
) -> None:
    probe = quick(made_up_backbone, "linear_probe", method_options=None).fit(*paths_and_labels)
    assert probe.score(*paths_and_labels) > 0.6
    with pytest.raises(MethodError, match="cannot take new class names"):
        probe.with_classes(["a", "b", "c"])


def test_the_paper_preset(made_up_backbone: str) -> None:
    classifier = FewShotClassifier("dapt", made_up_backbone, preset="paper", dataset="eurosat", shots=4)
    _, config, training = classifier.settings()
    assert (config.inter_weight, config.intra_weight, config.prototype_views) == (10, 100, 1)
    assert (training.lr, training.epochs, training.optimizer, training.momentum) == (20, 100, "sgd", 0.9)
    assert (training.weight_decay, training.warmup_lr, training.schedule) == (5e-4, 1e-5, "cosine_per_epoch")
    over = classifier.set_params(method_options={"inter_weight": 3}, train_options={"epochs": 7})
    assert over.settings()[1].inter_weight == 3 and over.settings()[2].epochs == 7
    generic = FewShotClassifier("dapt", preset="paper", shots=1).settings()
    assert (generic[1].inter_weight, generic[1].intra_weight, generic[2].epochs) == (0.1, 0.1, 50)
    assert FewShotClassifier("coop", preset="paper", shots=16).settings()[2].lr == 0.002
    assert FewShotClassifier("coop", preset="paper", dataset="imagenet").settings()[2].epochs == 50
    assert FewShotClassifier("vpt", preset="paper", shots=None).settings()[2].epochs == 200


def test_a_method_may_have_a_learning_rate_of_its_own() -> None:
    def rate(method: str = "clip_lora", preset: str | None = None, **training: object) -> float | None:
        cls, _, config = FewShotClassifier(method, preset=preset, train_options=training).settings()
        return config.resolved(1, cls.default_lr).lr

    assert rate() == 0.002 and rate("dapt") == 0.01
    assert rate(lr=0.1) == 0.1 and rate(optimizer="sgd") == 0.002 and rate(preset="paper") == 2e-4


WRONG: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "method": ({"method": "dap"}, MethodError, "Did you mean 'dapt'"),
    "option": ({"method_options": {"inter": 1}}, MethodError, "no option 'inter'"),
    "option value": ({"method_options": {"text_tokens": 0}}, MethodError, "text_tokens: expected 1 token or more"),
    "training option": ({"train_options": {"epoch": 1}}, TrainingError, "Did you mean 'epochs'"),
    "training value": ({"train_options": {"epochs": 0}}, TrainingError, "epochs must be"),
    "shots": ({"shots": 0}, DataError, "shots must be a whole number of at least 1"),
    "ensemble": ({"ensemble": "both"}, MethodError, "^ensemble must be one of auto, none; found 'both'$"),
    "calibrate": ({"calibrate": True}, MethodError, "^calibrate must be one of auto, none; found True$"),
    "templates": ({"templates": ["a photo"]}, MethodError, "templates: expected each to hold one {}"),
    "a text for templates": (
        {"templates": "a {}."},
        MethodError,
        "^templates must be a list of texts; found .*'a {}.'$",
    ),
    "shots as a word": ({"shots": "every"}, DataError, "at least 1, or 'all'; found 'every'"),
    "weights as a word": ({"class_weight": "balanced"}, DataError, "class_weight must be 'auto'"),
    "weights of other classes": (
        {"class_weight": {"red": 1, "yellow": 2}},
        DataError,
        "'yellow', which is not a class",
    ),
    "weights and balanced": (
        {"class_weight": "auto", "train_options": {"sampling": "balanced"}},
        DataError,
        "leave one of them out",
    ),
    "sampling": ({"train_options": {"sampling": "balance"}}, TrainingError, "Did you mean 'balanced'"),
    "steps and epochs": ({"train_options": {"steps": 3, "epochs": 2}}, TrainingError, "leave one of them out"),
    "seed": ({"seed": -1}, DataError, "seed must be"),
    "backbone": ({"backbone": "ViT-B-61/openai"}, daptune.DaptuneError, "Did you mean"),
    "preset": ({"preset": "papper"}, MethodError, "Did you mean 'paper'"),
    "data set": ({"preset": "paper", "dataset": "eurosatt"}, MethodError, "eurosat"),
    "data set alone": ({"dataset": "eurosat"}, MethodError, "preset='paper'"),
    "preset without the method": ({"preset": "paper", "method": "zero_shot"}, MethodError, "not for 'zero_shot'"),
    "device": ({"device": "gpu0"}, daptune.DaptuneError, "use cpu"),
    "precision": ({"precision": "fp8"}, daptune.DaptuneError, "fp8"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_settings_are_told_by_fit(
    case: str, made_up_backbone: str, paths_and_labels: tuple[list[str], list[str]]
) -> None:
    changes, kind, message = WRONG[case]
    classifier = FewShotClassifier(**({"backbone": made_up_backbone} | changes))
    with pytest.raises(kind, match=message):
        classifier.fit(*paths_and_labels)


def test_wrong_images_and_labels(
    made_up_backbone: str, fitted: FewShotClassifier, paths_and_labels: tuple[list[str], list[str]], tmp_path: Path
) -> None:
    paths, labels = paths_and_labels
    classifier = quick(made_up_backbone)
    with pytest.raises(DataError, match="one label an image"):
        classifier.fit(paths, labels[:-1])
    with pytest.raises(DataError, match="at least 2 classes"):
        classifier.fit(paths[:2], ["red", "red"])
    with pytest.raises(DataError, match="not among the 2 classes"):
        classifier.set_params(class_names=["a", "b"]).fit(paths, labels)
    for images, message in (
        ("picture.png", "a list of images or a folder"),
        (Image.new("RGB", (4, 4)), "pass it as a list"),
        ([], "found none"),
        ([tmp_path / "none.png"], "No such file"),
        ([object()], "expected an image"),
    ):
        with pytest.raises(DataError, match=message):
            fitted.predict(images)


def test_unreadable_images_are_left_out_and_drawn_anew(
    made_up_backbone: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for place, name in enumerate(CLASSES):
        for number in range(4):
            save_picture(tmp_path / name / f"{number}.png", COLOURS[name], place + number)
    for number in range(3):
        (tmp_path / "red" / f"{number}.png").write_bytes(b"not an image")
    classifier = quick(made_up_backbone, shots=2).fit(tmp_path)
    assert classifier.train_table_.counts().tolist() == [2, 2, 1]
    assert "cannot be read" in caplog.text
    (tmp_path / "red" / "3.png").write_bytes(b"nor this")
    with pytest.raises(DataError, match="no image of red can be read"):
        quick(made_up_backbone, shots=2).fit(tmp_path)


def test_a_stopped_fit_goes_on_in_its_run_folder(
    made_up_backbone: str, paths_and_labels: tuple[list[str], list[str]], tmp_path: Path
) -> None:
    def stop_early(state: Any) -> None:
        if state.step == 3:
            signal.raise_signal(signal.SIGINT)  # as Ctrl-C does, in this thread: the state is saved after this step

    options = {"train_options": {"epochs": 6, "batch_size": 3, "lr": 0.01}}
    whole = quick(made_up_backbone, **options).fit(*paths_and_labels)
    classifier = quick(made_up_backbone, **options)
    with pytest.raises(Interrupted):
        classifier.fit(*paths_and_labels, run_dir=tmp_path / "run", progress=stop_early)
    with pytest.raises(NotFittedError):
        classifier.save(tmp_path / "half")
    classifier.fit(*paths_and_labels, run_dir=tmp_path / "run", resume=True)
    assert torch.equal(whole.method_.text_prompt, classifier.method_.text_prompt)
    mixed, resumed = whole.method_.ensemble, classifier.method_.ensemble
    assert resumed is not None and resumed.mix == mixed.mix
    assert torch.equal(resumed.weights, mixed.weights) and torch.equal(resumed.bias, mixed.bias)


def test_a_loaded_backbone_is_taken_as_it_is(
    fitted: FewShotClassifier, paths_and_labels: tuple[list[str], list[str]]
) -> None:
    classifier = quick(fitted.backbone_, "zero_shot", method_options=None).fit(*paths_and_labels)
    assert classifier.backbone_ is fitted.backbone_


def uneven(paths_and_labels: tuple[list[str], list[str]]) -> tuple[list[str], list[str]]:
    """Ten, four and one pictures of the classes."""
    left, kept = {"red": 10, "green thing": 4, "blue_thing": 1}, []
    for path, label in zip(*paths_and_labels, strict=True):
        left[label] -= 1
        kept += [(path, label)] * (left[label] >= 0)
    paths, labels = zip(*kept, strict=True)
    return list(paths), list(labels)


def test_all_images_are_learned_from_by_default(
    made_up_backbone: str, paths_and_labels: tuple[list[str], list[str]], tmp_path: Path
) -> None:
    classifier = quick(made_up_backbone, shots=None, train_options={"epochs": 2, "epoch_shots": 3}).fit(
        *paths_and_labels
    )
    assert classifier.train_table_.counts().tolist() == [10, 10, 10] and classifier.left_out_ == 0
    assert (classifier.record_.shots, classifier.record_.data["images"]) == (None, 30)
    assert quick(made_up_backbone, shots=4).fit(*paths_and_labels).left_out_ == 18
    again = daptune.load(classifier.save(tmp_path / "a"))
    assert (again.shots, again.train_options["epoch_shots"], again.train_options["sampling"]) == (None, 3, "balanced")
    assert again.settings()[2] == classifier.train_config_


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ("balanced", 16)),
        ({"shots": "all"}, ("balanced", 16)),
        ({"shots": 16}, ("shuffled", None)),
        ({"preset": "paper"}, ("shuffled", None)),
        ({"preset": "fast"}, ("balanced", 16)),
        ({"class_weight": "auto"}, ("shuffled", 16)),
        ({"class_weight": "auto", "shots": 4}, ("shuffled", None)),
        ({"train_options": {"sampling": "shuffled", "epoch_shots": None}}, ("shuffled", None)),
        ({"train_options": {"sampling": "balanced"}, "shots": 16}, ("balanced", None)),
        ({"train_options": {"sampling": "balanced"}, "class_weight": {"a": 1}}, ("balanced", 16)),
    ],
)
def test_how_images_are_drawn(changes: dict[str, Any], expected: tuple[str, int | None]) -> None:
    config = FewShotClassifier("coop", **changes).settings()[2]
    assert (config.sampling, config.epoch_shots) == expected


@pytest.mark.parametrize(("shots", "images"), [(None, 48), ("all", 51), (2, 6)])
def test_the_paper_preset_learns_from_16_unless_told_otherwise(shots: Any, images: int, made_up_backbone: str) -> None:
    pictures = [np.full((4, 4, 3), value, np.uint8) for value in range(51)]
    classifier = FewShotClassifier(
        "coop", made_up_backbone, shots=shots, preset="paper", train_options={"epochs": 1, "lr": 1e-4}
    ).fit(pictures, ["a", "b", "c"] * 17)
    assert len(classifier.train_table_) == images and classifier.left_out_ == 51 - images
    assert classifier.record_.shots == (None if shots == "all" else shots or 16)


def test_many_images_take_the_steps_of_16_a_class(made_up_backbone: str) -> None:
    """40 of each of two classes in batches of 8: an epoch is 4 steps, as with 16 of each, and not 10."""
    pictures = [np.full((4, 4, 3), 3 * value, np.uint8) for value in range(80)]
    options = {"batch_size": 8, "min_crop": 1.0}
    ends = []
    for shots in (None, 16):
        classifier = FewShotClassifier("coop", made_up_backbone, shots=shots, train_options=options)
        classifier.fit(pictures, ["a", "b"] * 40)
        ends.append((len(classifier.history_.rows), classifier.history_.rows[-1].step))
    assert ends == [(50, 200), (50, 200)]


def test_with_equal_classes_it_learns_the_same_bits_whatever_the_sampling(
    made_up_backbone: str, paths_and_labels: tuple[list[str], list[str]]
) -> None:
    states = [
        quick(made_up_backbone, "dapt", shots=4, train_options=QUICK | drawn)
        .fit(*paths_and_labels)
        .method_.state_dict()
        for drawn in ({}, {"sampling": "balanced"}, {"sampling": "balanced", "epoch_shots": 16})
    ]
    assert all(torch.equal(states[0][name], other[name]) for other in states[1:] for name in states[0])


@pytest.mark.parametrize("method", ["coop", "linear_probe", "lp_pp"])
def test_weights_of_classes_are_used_and_recorded(
    method: str, made_up_backbone: str, paths_and_labels: tuple[list[str], list[str]], tmp_path: Path
) -> None:
    """15 images of 10, 4 and 1: 15 / (3 n_c) is 0.5, 1.25 and 5."""
    options: dict[str, Any] = {"method_options": None} if method != "coop" else {}
    plain = quick(made_up_backbone, method, shots=None, **options).fit(*uneven(paths_and_labels))
    classifier = clone(plain).set_params(class_weight="auto").fit(*uneven(paths_and_labels))
    assert classifier.method_.class_weight.tolist() == [5.0, 1.25, 0.5] and plain.method_.class_weight is None
    assert classifier.method_.class_names == ("blue_thing", "green thing", "red")
    if method == "lp_pp":  # on these features it says a third of every class; tests/methods/test_lp_pp.py has its steps
        assert not torch.equal(classifier.method_.bias, plain.method_.bias)
    else:
        rare = [m.predict_proba(paths_and_labels[0])[:, 0].mean() for m in (plain, classifier)]
        assert rare[1] > rare[0]
    assert classifier.record_.data["class_weight"] == "auto" and "class_weight" not in plain.record_.data
    assert daptune.load(classifier.save(tmp_path / "a")).class_weight == "auto"


def test_weights_by_name(made_up_backbone: str, paths_and_labels: tuple[list[str], list[str]], tmp_path: Path) -> None:
    weights = {"red": 1, "green thing": 2, "blue_thing": 3}
    classifier = quick(made_up_backbone, class_weight=weights).fit(*paths_and_labels)
    np.testing.assert_allclose(classifier.method_.class_weight, [1.5, 1, 0.5])
    assert daptune.load(classifier.save(tmp_path / "a")).class_weight == weights
    renamed = classifier.with_classes(["x", "y"])
    assert renamed.class_weight is None and "class_weight" not in renamed.record_.data


@pytest.mark.parametrize("method", ["zero_shot", "prototype", "tip_adapter"])
def test_a_method_without_a_loss_takes_no_weights(
    method: str, made_up_backbone: str, paths_and_labels: tuple[list[str], list[str]]
) -> None:
    with pytest.raises(MethodError, match=f"{method} has no loss to weigh classes in; leave out class_weight"):
        quick(made_up_backbone, method, method_options=None, class_weight="auto").fit(*paths_and_labels)


def test_prompts_say_other_names_and_answers_keep_the_labels(made_up_backbone: str, tmp_path: Path) -> None:
    """Integers here, with gaps; the reference is a classifier whose labels are the names."""
    images, numbers, words = [], [], []
    for number, (word, count) in {17: ("red", 4), 3: ("blue thing", 2), 8: ("green", 3)}.items():
        for seed in range(count):
            save_picture(tmp_path / f"{number}-{seed}.png", (200, 30 * number % 256, 0), seed)
            images.append(str(tmp_path / f"{number}-{seed}.png"))
            numbers.append(number)
            words.append(word)
    given = {17: "red", "3": ["blue thing"], 8: ("green",), 99: "nothing"}
    found = quick(made_up_backbone, class_names=given).fit(images, numbers)
    same = quick(made_up_backbone, class_names=["blue thing", "green", "red"]).fit(
        images, [["blue thing", "green", "red"].index(word) for word in words]
    )
    assert found.classes_.tolist() == [3, 8, 17] and found.method_.class_names == ("3", "8", "17")
    assert np.array_equal(found.predict_proba(images), same.predict_proba(images))
    loaded = daptune.load(found.save(tmp_path / "adapter"))
    assert loaded.method_.names == {"3": ("blue thing",), "8": ("green",), "17": ("red",)}
    assert loaded.predict(images).tolist() == found.predict(images).tolist()
    assert same.record_.names is None
    other = loaded.with_classes({"x": ["cat", "kitten"], "y": "dog"})
    assert other.classes_.tolist() == ["x", "y"] and other.record_.names == {"x": ["cat", "kitten"], "y": ["dog"]}


def test_names_that_clip_cannot_read_are_told_once(
    made_up_backbone: str, pictures: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (pictures / CLASSES[0]).rename(pictures / "n01532829")
    quick(made_up_backbone).fit(pictures)
    (line,) = (message for message in caplog.messages if "cannot read" in message)
    assert "cannot read 1 of 3 class names (n01532829)" in line and "--names names.csv" in line
    assert "--method prototype or linear_probe" in line
    caplog.clear()
    labels = {path.name: "cat" if path.name.startswith("n0") else path.name for path in pictures.iterdir()}
    quick(made_up_backbone, class_names=labels).fit(pictures)
    quick(made_up_backbone, "linear_probe", method_options=None).fit(pictures)
    assert not [message for message in caplog.messages if "cannot read" in message]
