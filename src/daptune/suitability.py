"""A word when a backbone does not know images of this kind, and what to type: one line for `fit`, `eval` and `report`.

Zero-shot CLIP has learned from none of the images, so its accuracy shows what the backbone knows of them. Accuracies
are compared on the way from chance, 1 / C for C classes, to all images right. There is a line if

- zero-shot is less than `EXPECTED` of the way, by a binomial test at `LEVEL`, so that few images do not cry wolf;
  published accuracies of CLIP ViT-B/16 on the data sets of CoOp are 0.23 of the way on aircraft variants, 0.36 on
  EuroSAT and more than 0.4 on the others (Shu et al., TPT, NeurIPS 2022, arXiv 2209.07511, table 2);
- the whole answer is less than `GOOD` of the way: where training made up for it, the backbone will do;
- most class names can be read by the backbone: otherwise zero-shot says nothing of the images.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from daptune.data.cache import Decoder
from daptune.data.table import ImageTable
from daptune.evaluate import measure, zero_shot
from daptune.methods import Method
from daptune.names import unreadable

PHOTOGRAPHS = "ViT-B-16/openai"
"""The backbone to type for photographs."""
LARGER = "ViT-L-14/openai"
"""The one to type after `PHOTOGRAPHS`."""
KNOWS = {
    "photo": "It was trained on photographs of 64 pixels. A full-size CLIP knows far more: type --backbone "
    f"{PHOTOGRAPHS}; for icons, --backbone tiny.",
    "tiny": f"It was trained on emoji and icons; for photographs, type --backbone {PHOTOGRAPHS}, or --backbone photo, "
    "which is in the package.",
}
"""What the backbones of this package were trained on, and what to type instead."""
EXPECTED, GOOD = 0.25, 0.75
LEVEL = 0.05
MOST = 300
"""Images that zero-shot is measured on where nothing else needs it."""


def unsuited(
    backbone: str,
    names: Mapping[str, Sequence[str]],
    images: int,
    plain: float,
    answer: float | None = None,
    *,
    encode: Callable[[str], Sequence[int]] | None = None,
    more: str = "",
) -> str | None:
    """The line, or None.

    backbone  its name       names  class -> the names in its prompt       images  number of images that were measured
    plain     zero-shot accuracy on these       answer  accuracy of the adapter, or None if it was not measured
    encode    text -> its tokens, as in `daptune.names.unreadable`       more  a command that shows more, or ""
    """
    from scipy.stats import binomtest  # a dependency of scikit-learn

    if not _readable(names, encode) or (answer is not None and answer >= _on_the_way(GOOD, len(names))):
        return None
    expected = _on_the_way(EXPECTED, len(names))
    if not images or binomtest(round(plain * images), images, expected, alternative="less").pvalue >= LEVEL:
        return None
    instead = f"For photographs, type --backbone {LARGER if backbone == PHOTOGRAPHS else PHOTOGRAPHS}."
    return (
        f"the backbone {backbone} does badly on these images: by the class names alone it is right on "
        f"{100 * plain:.1f} % of {images}, where one that knows such images is right on {100 * expected:.1f} % or more "
        f"(chance: {100 / len(names):.1f} %). {KNOWS.get(backbone, instead)}"
        + (f" See where it fails: {more}" if more else "")
    )


def unsuited_for(
    method: Method,
    table: ImageTable,
    answer: float | None,
    *,
    templates: Sequence[str] = (),
    dataset: str | None = None,
    decoder: Decoder | None = None,
    more: str = "",
) -> str | None:
    """`unsuited` for images that zero-shot was not measured on: `MOST` of them, and none if the answer is good."""
    encode = method.backbone.tokenizer.spelling
    good = answer is not None and answer >= _on_the_way(GOOD, len(method.names))
    if table.multi_label or good or not len(table) or not _readable(method.names, encode):
        return None
    rows = np.unique(np.linspace(0, len(table) - 1, min(len(table), MOST)).astype(int))
    plain = measure(zero_shot(method.backbone, method.names, templates, dataset), table.subset(rows), decoder=decoder)
    return unsuited(method.backbone.name, method.names, len(rows), plain.accuracy, answer, encode=encode, more=more)


def _on_the_way(share: float, classes: int) -> float:
    """The accuracy at a share of the way from chance to 1."""
    return 1 / classes + share * (1 - 1 / classes)


def _readable(names: Mapping[str, Sequence[str]], encode: Callable[[str], Sequence[int]] | None) -> bool:
    """Whether most of two or more classes have a name that can be read."""
    lost = sum(len(unreadable(own, encode)) == len(own) for own in names.values())
    return len(names) > 1 and 2 * lost < len(names)
