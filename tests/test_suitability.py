"""A word on a backbone that does not know the images: when it comes, when not, and what it says."""

from pathlib import Path

import numpy as np
import pytest

from daptune import suitability
from daptune.clip.hub import EMBEDDED
from daptune.data.sources import table_from_lists
from daptune.suitability import KNOWS, LARGER, PHOTOGRAPHS, unsuited, unsuited_for

from .conftest import COLOURS, save_picture

TEN = {name: [name] for name in ("coat", "dress", "hat", "jacket", "shirt", "shoes", "shorts", "skirt", "top", "vest")}
TWO = {"cup": ["cup"], "bottle": ["bottle"]}


def test_the_line_says_what_was_found_what_to_expect_and_what_to_type() -> None:
    """A quarter of the way from 1/10 to 1 is 0.325."""
    assert unsuited("tiny", TEN, 372, 0.234, 0.57, more="daptune report a --images b") == (
        "the backbone tiny does badly on these images: by the class names alone it is right on 23.4 % of 372, where "
        "one that knows such images is right on 32.5 % or more (chance: 10.0 %). It was trained on emoji and icons; "
        "for photographs, type --backbone ViT-B-16/openai, or --backbone photo, which is in the package. See where it "
        "fails: daptune report a --images b"
    )
    assert set(KNOWS) == set(EMBEDDED)
    other = unsuited(PHOTOGRAPHS, TEN, 372, 0.234)
    assert other is not None and f"--backbone {LARGER}" in other and "trained on" not in other


@pytest.mark.parametrize(
    ("names", "images", "plain", "answer", "said"),
    [
        (TEN, 372, 0.234, 0.80, False),  # three quarters of the way are 0.775: training made up for it
        (TEN, 372, 0.234, 0.77, True),
        (TEN, 372, 0.325, 0.4, False),  # as expected
        (TEN, 30, 0.2, 0.4, False),  # 6 of 30: 10 % of draws at 0.325 have so few
        (TEN, 300, 0.2, 0.4, True),
        (TWO, 4, 0.25, 0.5, False),  # 1 of 4 at 0.625: 0.375^4 + 4 * 0.625 * 0.375^3 = 0.15
        (TWO, 4, 0.0, 0.5, True),  # 0.375^4 = 0.02
        (TWO, 3, 0.0, 0.0, False),  # 0.375^3 = 0.053
        (TWO, 0, 0.0, None, False),
        ({"cup": ["cup"]}, 50, 0.0, None, False),
        ({str(number): [str(number)] for number in range(10)}, 372, 0.05, 0.3, False),  # names that say nothing
        (TEN | {"n01532829": ["n01532829"]}, 372, 0.05, 0.3, True),
    ],
)
def test_few_images_good_answers_and_unreadable_names_say_nothing(
    names: dict[str, list[str]], images: int, plain: float, answer: float | None, said: bool
) -> None:
    assert (unsuited("tiny", names, images, plain, answer) is not None) is said


@pytest.mark.parametrize(("classes", "truth"), [(10, 0.325), (2, 0.625)])
def test_at_the_limit_at_most_one_in_twenty_cries_wolf(classes: int, truth: float) -> None:
    names = {f"thing {chr(97 + c)}": [f"thing {chr(97 + c)}"] for c in range(classes)}
    rng = np.random.default_rng(0)
    for images in (5, 20, 100):
        said = [unsuited("x", names, images, k / images) is not None for k in rng.binomial(images, truth, 2000)]
        assert np.mean(said) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 2000)


def test_zero_shot_is_measured_on_some_images_and_not_where_the_answer_is_good(
    fitted: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An untrained backbone knows no colours: 26 images of three uneven classes, 13 of them measured."""
    names = [*["red"] * 14, *["green thing"] * 7, *["blue_thing"] * 5]
    for number, name in enumerate(names):
        save_picture(tmp_path / f"{number}.png", COLOURS[name], number)
    method = fitted.method_  # type: ignore[attr-defined]
    table = table_from_lists([tmp_path / f"{n}.png" for n in range(26)], names, label_names=method.class_names)
    measured = []
    measure = suitability.measure

    def counted(*given: object, **more: object) -> object:
        measured.append(measure(*given, **more))  # type: ignore[arg-type]
        return measured[-1]

    monkeypatch.setattr(suitability, "measure", counted)
    monkeypatch.setattr(suitability, "MOST", 13)
    monkeypatch.setattr(suitability, "EXPECTED", 0.99)  # whatever the made-up backbone makes of colours
    line = unsuited_for(method, table, 0.5)
    (found,) = measured
    assert line is not None and len(found.labels) == 13 and f"{100 * found.accuracy:.1f} % of 13," in line
    rows = [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 25]
    assert found.labels.tolist() == table.labels[rows].tolist()
    assert unsuited_for(method, table, 0.9) is None and len(measured) == 1
