"""The figure of docs/dispersion.md, from the committed results: `python -m studies.dispersion_figure`."""

from pathlib import Path

import matplotlib.pyplot as plt

from daptune.metrics import paired_bootstrap
from studies.dispersion import DOMAINS, hits
from studies.runs import published

ROOT = Path(__file__).parents[1]
SHOTS = (1, 4, 16)
SPLITS = {"test images": ("test",), "unseen styles": DOMAINS}
COLOURS = ("#e69f00", "#009e73", "#0072b2")  # Okabe and Ito's, told apart by colour-blind readers too
NAMES = {
    "same +inter": "inter\nadded",
    "same +intra": "intra\nadded",
    "same +both": "both\nadded",
    "+inter": "inter,\nown best",
    "+intra": "intra,\nown best",
    "dapt": "both,\nown best",
}


def main() -> None:
    rows = published(ROOT / "studies/results/dispersion.jsonl")
    figure, panels = plt.subplots(1, 2, sharey=True, figsize=(11, 3.6), layout="constrained")
    for panel, (title, splits) in zip(panels, SPLITS.items(), strict=True):
        for place, (shots, colour) in enumerate(zip(SHOTS, COLOURS, strict=True)):
            base = hits(rows, "coop_vpt", shots, splits).mean(0)
            found = [paired_bootstrap([[base, hits(rows, label, shots, splits).mean(0)]]) for label in NAMES]
            middle = [100 * each.difference for each in found]
            ends = [[100 * (d.difference - d.low) for d in found], [100 * (d.high - d.difference) for d in found]]
            at = [number + 0.22 * (place - 1) for number in range(len(NAMES))]
            label = f"{shots} shot" if shots == 1 else f"{shots} shots"
            panel.errorbar(at, middle, ends, fmt="o", color=colour, markersize=5, label=label)
        panel.axhline(0, color="0.6", linewidth=1)
        panel.axvline(2.5, color="0.8", linewidth=0.8, linestyle=":")
        panel.set_title(title, fontsize=10)
        panel.set_xticks(range(len(NAMES)), list(NAMES.values()), fontsize=8)
        panel.tick_params(labelsize=8)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("points above the baseline", fontsize=9)
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, fontsize=9, frameon=False, loc="outside lower center", ncols=3)
    figure.savefig(ROOT / "docs/dispersion.svg", metadata={"Date": None})


if __name__ == "__main__":
    plt.rcParams.update({"svg.hashsalt": "daptune", "svg.fonttype": "none"})  # the same file each time, a small one
    main()
