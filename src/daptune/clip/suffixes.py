"""The texts of the classes behind a context that they share, as token ids.

A prompt is [start | context | name . EOT]. The context is common to all classes, the suffix `name . EOT` is a class's
own. How they are laid out for a text tower is the tower's matter (`TextTower.features`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from ..errors import BackboneError
from ..names import readable
from .pooling import NamePool, Names, pool_names

if TYPE_CHECKING:
    from .tokenizer import TextTokenizer

T = TypeVar("T")


@dataclass(frozen=True)
class Suffixes:
    """The suffixes of C classes.

    Where classes have several names, there is a suffix for each name, and `pool` makes one feature of those of a class.
    """

    ids: tuple[tuple[int, ...], ...]
    """Of each name the ids of its suffix, including the EOT."""
    start: tuple[int, ...]
    """Ids before the context."""
    pad: int = 0
    """Id of what fills texts up, for towers that see it."""
    pool: NamePool | None = None
    """None: one name for each class."""
    _laid_out: dict[tuple[torch.device, str], Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def build(
        cls,
        tokenizer: "TextTokenizer",
        class_names: Names,
        context_tokens: int,
        *,
        cut: int = 0,
        phrase: str = "{}.",
    ) -> "Suffixes":
        """Tokenise `phrase` with the name of each class, or with each of its names, after M = `context_tokens`.

        The first `cut` tokens of each are then left out.
        """
        names, pool = pool_names(class_names)
        ids = [name_tokens(tokenizer, name, phrase) for name in names]
        room = tokenizer.context_length - len(tokenizer.start) - context_tokens
        if room < 3:  # a word, the full stop and the EOT: too short for any name
            raise BackboneError(
                f"{context_tokens} context tokens leave no room for class names in the backbone's "
                f"{tokenizer.context_length}: learn fewer context tokens, "
                f"{tokenizer.context_length - len(tokenizer.start) - 3} at most."
            )
        name, suffix = max(zip(names, ids, strict=True), key=lambda own: len(own[1]))
        if len(suffix) > room:
            fewer = context_tokens - (len(suffix) - room)
            learn = f" or learn fewer context tokens, {fewer} at most (--set text_tokens)" if fewer > 0 else ""
            raise BackboneError(
                f"class name {name!r} takes {len(suffix)} tokens, but {room} of the backbone's "
                f"{tokenizer.context_length} are left beside {context_tokens} context tokens: shorten the name "
                f"(--names keeps the label){learn}."
            )
        return cls(tuple(tuple(suffix[cut:]) for suffix in ids), tokenizer.start, tokenizer.pad, pool)

    @classmethod
    def of_texts(
        cls, tokenizer: "TextTokenizer", texts: Sequence[str], pool: NamePool | None = None
    ) -> tuple[Tensor, "Suffixes"]:
        """Split C texts into the ids (M,) of their common prefix, without the start, and their suffixes."""
        rows = [tokenizer.row(text) for text in texts]
        first = common = len(tokenizer.start)
        while all(len(row) > common + 1 and row[common] == rows[0][common] for row in rows):
            common += 1
        suffixes = cls(tuple(tuple(row[common:]) for row in rows), tokenizer.start, tokenizer.pad, pool)
        return torch.tensor(rows[0][first:common], dtype=torch.int64), suffixes

    def laid_out(self, device: torch.device, make: Callable[["Suffixes"], T], kind: str = "") -> T:
        """What a tower makes of them for a device, of each `kind` once: a copy in every step would block the CPU."""
        if (device, kind) not in self._laid_out:
            with torch.inference_mode(False):  # training after prediction needs normal tensors
                self._laid_out[device, kind] = make(self)
        found: T = self._laid_out[device, kind]
        return found


def name_tokens(tokenizer: "TextTokenizer", name: str, phrase: str = "{}.") -> list[int]:
    check_name(tokenizer, name)
    return [*tokenizer.encode(phrase.replace("{}", readable(name))), tokenizer.eot]


def check_name(tokenizer: "TextTokenizer", name: str) -> None:
    """Raise BackboneError for a class name of which the tokenizer keeps nothing."""
    if name.strip() and not tokenizer.encode(readable(name)):
        raise BackboneError(
            f"the class name {name!r} has only punctuation, which the backbone's tokenizer drops: say what it is, with "
            "--names names.csv (Python: class_names={label: name})."
        )
