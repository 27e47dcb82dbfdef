"""Figures against scikit-learn and numpy, on unbalanced classes; what `evaluate` answers against a loop by hand."""

import copy
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import accuracy_score, f1_score, log_loss, recall_score

from daptune.classifier import FewShotClassifier
from daptune.data import images as decoding
from daptune.data.cache import Decoder
from daptune.data.sources import read_source, table_from_lists
from daptune.data.table import ImageTable
from daptune.errors import DataError
from daptune.evaluate import evaluate, measure, measure_beside, nearest_words, zero_shot
from daptune.measured import Measured
from daptune.methods import METHODS

from .conftest import CLASSES, COLOURS, save_picture, scores_by_hand

COUNTS = (2, 9, 5)
"""Images of each class: a mean over classes is not one over images."""


@pytest.fixture
def uneven(tmp_path: Path) -> Path:
    """A folder with 2, 9 and 5 pictures of the three classes, the last of each in another class's colour."""
    for place, (name, count) in enumerate(zip(CLASSES, COUNTS, strict=True)):
        for number in range(count):
            colour = COLOURS[name if number < count - 1 else CLASSES[place - 1]]
            save_picture(tmp_path / "uneven" / name / f"{number}.png", colour, 50 * place + number)
    return tmp_path / "uneven"


def by_hand(classifier: FewShotClassifier, table: ImageTable, temperature: float = 1.0) -> NDArray[np.float64]:
    """softmax(scores / temperature), one image at a time and in numpy."""
    rows = []
    for path in table.images:
        picture = classifier.backbone_.preprocess(Image.open(path).convert("RGB"))
        rows.append(scores_by_hand(classifier.method_, picture.unsqueeze(0))[0] / temperature)
    powers = np.exp(np.array(rows) - np.max(rows, axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def test_figures_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 3], COUNTS)  # nothing is of class 2
    p = rng.dirichlet(np.ones(4), len(labels)).astype(np.float32)
    p[:3] = [[1, 0, 0, 0], [0, 0, 1, 0], [0, 0.75, 0.25, 0]]
    found, said = Measured(p, labels), p.argmax(axis=1)
    assert found.accuracy == pytest.approx(accuracy_score(labels, said))
    assert found.macro_f1 == pytest.approx(f1_score(labels, said, labels=[0, 1, 3], average="macro"))
    assert found.per_class[[0, 1, 3]] == pytest.approx(recall_score(labels, said, labels=[0, 1, 3], average=None))
    assert np.isnan(found.per_class[2])
    sure = labels[2:], p[2:]  # the second row gives the true class no chance at all
    assert Measured(sure[1], sure[0]).nll == pytest.approx(log_loss(*sure, labels=range(4)), rel=1e-5)
    assert found.correct.tolist() == [bool(a == b) for a, b in zip(said, labels, strict=True)]
    plain = found.to_json(["a", "b", "c", "d"])
    assert set(plain["per_class"]) == {"a", "b", "d"} and plain["accuracy"] == found.accuracy == found["accuracy"]


def test_an_answer_among_some_classes() -> None:
    found = Measured(np.array([[0.5, 0.3, 0.2], [0.1, 0.6, 0.3]], np.float32), np.array([1, 0]))
    some = found.among([2, 0])
    np.testing.assert_allclose(some.probabilities, [[0.2 / 0.7, 0.5 / 0.7], [0.75, 0.25]], rtol=1e-6)
    assert some.predicted.tolist() == [1, 0] and some.accuracy == 1


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_a_classifier_is_measured_as_by_hand(fitted: FewShotClassifier, uneven: Path, temperature: float) -> None:
    classifier = copy.copy(fitted)
    classifier.record_ = replace(fitted.record_, temperature=temperature)
    table = read_source(uneven).train
    expected = by_hand(classifier, table, temperature)
    found = classifier.evaluate(uneven)
    np.testing.assert_allclose(found.probabilities, expected, atol=2e-5)
    assert found.labels.tolist() == np.repeat([0, 1, 2], COUNTS).tolist()
    said = expected.argmax(axis=1)
    assert found.accuracy == pytest.approx(accuracy_score(found.labels, said)) == classifier.score(uneven)
    assert found.nll == pytest.approx(log_loss(found.labels, expected, labels=range(3)), rel=1e-3)
    assert found.macro_f1 == pytest.approx(f1_score(found.labels, said, labels=range(3), average="macro"))
    names = [CLASSES[label] for label in table.labels]
    np.testing.assert_array_equal(classifier.evaluate(list(table.images), names).probabilities, found.probabilities)
    weights = np.arange(len(names))
    assert classifier.score(uneven, sample_weight=weights) == pytest.approx(np.average(found.correct, weights=weights))


def test_integer_labels_and_strange_ones(fitted: FewShotClassifier, uneven: Path) -> None:
    table = read_source(uneven).train
    classifier = copy.copy(fitted)
    classifier.record_ = replace(fitted.record_, labels=[7, 30, 5])
    numbers = np.array([7, 30, 5])[table.labels]
    np.testing.assert_array_equal(classifier.evaluate(list(table.images), numbers).labels, table.labels)
    with pytest.raises(DataError, match="label 8 is not among the 3 classes"):
        classifier.evaluate(list(table.images), numbers + 1)
    with pytest.raises(DataError, match="'pink' is not among the 3 classes"):
        fitted.evaluate([table.images[0]], ["pink"])
    (uneven / "red" / "0.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"0\.png: not an image"):
        fitted.evaluate(uneven)


def test_scaled_decoding_counts_in_measuring_too(fitted: FewShotClassifier, tmp_path: Path) -> None:
    path = tmp_path / "large.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (600, 700, 3)).astype(np.uint8)
    Image.fromarray(noise).save(path)
    classifier = copy.copy(fitted)
    classifier.scaled_decoding = True
    found = classifier.evaluate([path], ["red"]).probabilities
    np.testing.assert_array_equal(found, classifier.predict_proba([path]))
    assert not np.array_equal(found, fitted.evaluate([path], ["red"]).probabilities)


def test_two_methods_read_the_images_once(
    fitted: FewShotClassifier, uneven: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, seen = read_source(uneven).train, Counter[Path]()
    decode = decoding.decode

    def counted(source: Any, **options: Any) -> Image.Image:
        seen[source] += 1
        return decode(source, **options)

    baseline = zero_shot(fitted.backbone_, CLASSES, templates=["a {} picture."])
    with monkeypatch.context() as patch:
        patch.setattr(decoding, "decode", counted)
        both = measure_beside(baseline, fitted.method_, table, temperature=3, batch_size=4)
    assert seen == Counter(table.images)
    assert list(both) == ["zero_shot", "coop_vpt alone", "coop_vpt"]
    for name, alone in (("zero_shot", measure(baseline, table, batch_size=4)),
                        ("coop_vpt", measure(fitted.method_, table, temperature=3, batch_size=4))):  # fmt: skip
        np.testing.assert_array_equal(both[name].probabilities, alone.probabilities)
    prompts = copy.deepcopy(fitted.method_)  # a shallow copy shares its modules
    prompts.ensemble = None
    learned = measure(prompts, table, batch_size=4)  # the temperature is the answer's
    np.testing.assert_array_equal(both["coop_vpt alone"].probabilities, learned.probabilities)
    assert list(measure_beside(baseline, prompts, table)) == ["zero_shot", "coop_vpt"]
    own = measure_beside(baseline, baseline, table)
    assert list(own) == ["zero_shot"]


def test_the_mode_is_put_back_and_batches_are_told(fitted: FewShotClassifier, uneven: Path) -> None:
    method, told = METHODS["coop"](fitted.backbone_, CLASSES), []
    method.train()
    measure(method, read_source(uneven).train, batch_size=6, after_batch=lambda: told.append(method.training))
    assert method.training and told == [False] * 3

    class Nothing:
        def evaluation(self) -> Any:
            return iter(())

    with pytest.raises(DataError, match="no images"):
        evaluate(method, Nothing())
    assert method.training
    with pytest.raises(DataError, match="found none"):
        measure(method, read_source(uneven).train.subset([]))


def test_images_that_a_decoder_holds_are_not_decoded_again(fitted: FewShotClassifier, uneven: Path) -> None:
    table, decoder = read_source(uneven).train, Decoder()
    for source in table.images:
        decoder(source)
        source.unlink()
    assert measure(fitted.method_, table, decoder=decoder).labels.shape == (16,)


def test_the_zero_shot_classifier_reads_templates(fitted: FewShotClassifier) -> None:
    backbone = fitted.backbone_
    plain, own = zero_shot(backbone, CLASSES), zero_shot(backbone, CLASSES, ["a {} thing."], dataset="eurosat")
    assert own.config.templates == ("a {} thing.",) and plain.config.templates == ()
    assert zero_shot(backbone, CLASSES, dataset="eurosat").config.dataset == "eurosat" and not plain.training


def test_nearest_words_are_the_nearest_rows_of_the_table(fitted: FewShotClassifier) -> None:
    rows = nearest_words(fitted.method_, 2)
    prompt = fitted.method_.text_prompt.detach().numpy()
    table = fitted.backbone_.clip.text.token_embedding.weight.detach().float().numpy()
    for row, token in zip(rows, prompt, strict=True):
        distances = np.linalg.norm(table - token, axis=1)
        assert [word["distance"] for word in row["words"]] == pytest.approx(np.sort(distances)[:2].tolist(), rel=1e-4)
    assert nearest_words(zero_shot(fitted.backbone_, CLASSES), 2) == []


def test_what_was_held_out_is_measured_on(made_up_backbone: str, uneven: Path) -> None:
    """Of 2, 9 and 5 images a quarter is 0 (too few), 2 and 1."""
    classifier = FewShotClassifier("zero_shot", made_up_backbone, shots=4, precision="fp32")
    classifier.fit(uneven, holdout=0.25)
    assert classifier.test_table_ is not None and classifier.test_table_.counts().tolist() == [0, 2, 1]
    learned, held = (set(table.images) for table in (classifier.train_table_, classifier.test_table_))
    assert not learned & held and classifier.record_.data["holdout"] == 0.25
    assert classifier.test_name_ == "25% of the images, drawn by class"
    assert np.isnan(classifier.evaluate(classifier.test_table_).per_class[0])
    lists = table_from_lists(sorted(learned), [path.parent.name for path in sorted(learned)])
    assert classifier.fit(lists).test_table_ is None and "holdout" not in classifier.record_.data


def test_what_is_unknown_and_what_sets_hold_is_counted() -> None:
    """Of five images by hand: p values of at most the share are unknown; sets from the second of four probabilities."""
    p = np.array([[0.7, 0.2, 0.1], [0.45, 0.35, 0.2], [0.1, 0.1, 0.8], [0.05, 0.05, 0.9], [0.3, 0.32, 0.38]])
    found = Measured(p, np.array([0, 1, 0, 2, 1]), np.array([0.05, 0.2, 0.04, 1.0, 0.1]), (0.1, 0.3, 0.6, 0.9))
    assert found.turned_away(0.05) == pytest.approx(2 / 5) and found.turned_away(0.1) == pytest.approx(3 / 5)
    # p values of probabilities: 0.2 below 0.1, 0.4 below 0.3, 0.6 below 0.6: at 40 %, sets hold those of 0.3 and more
    assert found.covered(0.4) == (pytest.approx(4 / 5), pytest.approx((1 + 2 + 1 + 1 + 3) / 5))
    assert np.isnan(Measured(p, found.labels).turned_away(0.05))


def test_known_images_are_measured_in_the_same_pass(exact: FewShotClassifier, uneven: Path) -> None:
    table = read_source(uneven).train
    found = measure_beside(zero_shot(exact.backbone_, exact.method_.class_names), exact.method_, table)
    assert found["coop_vpt"].known is not None and found["coop_vpt"].truth == exact.truth != ()
    np.testing.assert_allclose(found["coop_vpt"].known, exact.predict_known(table.images))
    assert found["zero_shot"].known is found["coop_vpt alone"].known is None
