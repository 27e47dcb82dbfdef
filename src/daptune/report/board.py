"""Summaries of results: means over seeds and data sets, and differences with their significance.

Differences compare two methods on the same images, averaged over their common seeds; interval and p value come from
the paired bootstrap over these images (`daptune.metrics`). Standard deviations beside means are over seeds.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from daptune.bench.results import Result
from daptune.bench.summary import Summary, over_seeds
from daptune.metrics import PairedDifference, paired_bootstrap

BASELINES = ("zero_shot", "linear_probe")  # listed before all other methods


@dataclass(frozen=True)
class Board:
    """The results of one kind of experiment, and the label `focus` that the others are compared with."""

    results: tuple[Result, ...]
    focus: str
    _known: dict[tuple[object, ...], PairedDifference | None] = field(default_factory=dict, repr=False, compare=False)
    """Cache of differences, each of which takes ten thousand resamples."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Baselines first, then in the order of the results, the focus last."""
        first = {label: place for place, label in enumerate(BASELINES)}
        seen = dict.fromkeys(result.label for result in self.results)
        return tuple(sorted(seen, key=lambda label: (label == self.focus, first.get(label, len(first)))))

    @property
    def others(self) -> tuple[str, ...]:
        return tuple(label for label in self.labels if label != self.focus)

    @property
    def datasets(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(result.dataset for result in self.results))

    @property
    def parts(self) -> list[tuple[str, ...]]:
        """Groups of data sets to average over: all of them if there are several, then each."""
        return ([self.datasets] if len(self.datasets) > 1 else []) + [(name,) for name in self.datasets]

    @property
    def shots(self) -> tuple[int, ...]:
        """Ascending; without those of zero-shot, if other methods have results."""
        learned = {r.shots for r in self.results if r.label != "zero_shot"}
        return tuple(sorted(learned or {r.shots for r in self.results}))

    @property
    def top_shots(self) -> int:
        """The most shots with results of the focus; in an unfinished run others may have more."""
        own = [r.shots for r in self.results if r.label == self.focus and r.shots in self.shots]
        return max(own, default=self.shots[-1])

    def rows(self, label: str, dataset: str, shots: int) -> tuple[Result, ...]:
        """One per seed, sorted. Zero-shot results count for any number of shots."""
        own = [r for r in self.results if r.label == label and r.dataset == dataset]
        found = [r for r in own if r.shots == shots]
        if not found and label == "zero_shot":
            found = own
        return tuple({r.seed: r for r in sorted(found, key=lambda r: r.seed)}.values())

    def mean_over(self, datasets: Sequence[str], label: str, shots: int, split: str = "test") -> Summary | None:
        return over_seeds((row for name in datasets for row in self.rows(label, name, shots)), datasets, split)

    def gap(self, label: str, other: str, datasets: Sequence[str], shots: int) -> PairedDifference | None:
        """`difference`; without hits per image that of the means, with an interval of NaN; None without means."""
        if (found := self.difference(label, other, datasets, shots)) is not None:
            return found
        ours, theirs = (self.mean_over(datasets, name, shots) for name in (label, other))
        if ours is None or theirs is None:
            return None
        return PairedDifference(ours.mean - theirs.mean, math.nan, math.nan, math.nan)

    def difference(
        self, label: str, other: str, datasets: Sequence[str], shots: int, splits: Sequence[str] = ("test",)
    ) -> PairedDifference | None:
        """`label` minus `other`, mean over data sets and splits; None without hits per image."""
        key = (label, other, tuple(datasets), shots, tuple(splits))
        if key not in self._known:
            pairs = [self._hits(label, other, dataset, shots, split) for dataset in datasets for split in splits]
            whole = [pair for pair in pairs if pair is not None]
            self._known[key] = paired_bootstrap(whole) if whole and len(whole) == len(pairs) else None
        return self._known[key]

    def _hits(
        self, label: str, other: str, dataset: str, shots: int, split: str
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """Share of common seeds with a correct prediction of each image, (n,), for `other` and for `label`."""
        bits: list[dict[int, str]] = []
        for name in (other, label):
            rows = self.rows(name, dataset, shots)
            bits.append({row.seed: row.correct[split] for row in rows if row.correct.get(split)})
        if "zero_shot" in (label, other):  # one run of it counts for every seed
            plain = 0 if other == "zero_shot" else 1
            if bits[plain]:
                bits[plain] |= {seed: next(iter(bits[plain].values())) for seed in bits[1 - plain].keys() - bits[plain]}
        seeds = sorted(bits[0].keys() & bits[1].keys())
        if not seeds or len({len(bits[side][seed]) for side in (0, 1) for seed in seeds}) != 1:
            return None
        first, second = (np.mean([[int(b) for b in side[seed]] for seed in seeds], axis=0) for side in bits)
        return first, second


def harmonic(base: float, new: float) -> float:
    """The harmonic mean of two shares; 0 if one is 0."""
    return 2 * base * new / (base + new) if base > 0 and new > 0 else 0.0


def verdict(found: PairedDifference) -> str:
    """Either "ahead" or "behind", or "level" if the 95 % interval contains zero."""
    return "ahead" if found.low > 0 else "behind" if found.high < 0 else "level"


MEANING = {"ahead": "excludes zero", "behind": "excludes zero", "level": "contains zero"}
"""Verdict -> description of the interval."""


def choose_focus(results: Sequence[Result], wanted: str | None) -> str:
    """The label to compare the others with: the wanted one, else `dapt`, else the last in the results."""
    labels = list(dict.fromkeys(result.label for result in results))
    return wanted or ("dapt" if "dapt" in labels else labels[-1])
