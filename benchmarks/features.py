"""Methods that learn from stored features: `python -m benchmarks.features [--classes 100] [--shots 16] [--repeats 5]`.

GDA, ZS-LP, CLAP and ProLIP at the sizes of ViT-B/16, on made-up features that both sides are given: what a fit takes
beside encoding its images. The reference computes what the official code does, in float32, with plain autograd
(benchmarks/reference.py has those of methods that need the towers). Rows: the closed form of GDA, of ten views of each
image, with its search on four validation images a class; 100 steps of batches of 256 for ZS-LP and CLAP, of all images
for ProLIP. Both sides take turns in one process. Prints seconds (medians), the ratios of the turns, and the largest
difference of what was learned, relative to the largest entry of the reference's.
"""

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks import workload
from benchmarks.host import keep
from benchmarks.measure import daptune_method
from benchmarks.turns import by_turns, ratio
from daptune.methods.gaussian import best_alpha, fit_gaussian, rows_of

Run = Callable[[], Tensor]
VIEWS, OF_VALIDATION, STEPS, BATCH = 10, 4, 100, 256
ALPHAS = (1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0)
SCALE = 100.0
METHODS = ("zs_lp", "clap", "prolip")


def unit(*shape: int, seed: int) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def closed_form(classes: int, shots: int) -> tuple[Run, Run]:
    """GDA's weights (C, D) times the chosen alpha: by the official code's formulas, by daptune."""
    size = workload.VIT_B16["embed_dim"]
    labels, means = torch.arange(classes).repeat_interleave(shots), unit(classes, size, seed=1)
    text = F.normalize(means + 2 * unit(classes, size, seed=2), dim=-1)
    x = F.normalize(means[labels] + 1.5 * unit(VIEWS, len(labels), size, seed=3), dim=-1)  # (V, n, D)
    of_val = torch.arange(classes).repeat_interleave(OF_VALIDATION)
    z = F.normalize(means[of_val] + 1.5 * unit(len(of_val), size, seed=4), dim=-1)

    def reference() -> Tensor:
        vectors, own = x.flatten(0, 1), labels.repeat(VIEWS)
        mu = torch.stack([vectors[own == c].mean(0) for c in range(classes)])
        around = torch.cat([vectors[own == c] - mu[c] for c in range(classes)])
        covariance = around.T.cov()
        shrunk = (len(around) - 1) * covariance + covariance.trace() * torch.eye(size)
        weight = mu @ (size * torch.linalg.pinv(shrunk))
        bias = -(weight * mu).sum(1) / 2
        right = [((SCALE * z @ text.T + a * (z @ weight.T + bias)).argmax(1) == of_val).sum() for a in ALPHAS]
        return ALPHAS[int(torch.stack(right).argmax())] * (weight - weight.mean(0))

    def ours() -> Tensor:
        found = fit_gaussian(x.double().numpy(), labels.numpy(), classes, True)
        logits = (SCALE * z @ text.T).double().numpy()
        alpha = best_alpha(ALPHAS, [(found, z.double().numpy(), logits, of_val.numpy())], 0.01)
        return alpha * torch.from_numpy(rows_of(found, centred=True)[0]).float()

    return reference, ours


def by_steps(name: str, classes: int, shots: int) -> tuple[Run, Run]:
    """What a method has learned after STEPS steps of SGD: with plain autograd, by daptune."""
    method, projects = daptune_method(name, "fp32", workload.class_tokens(classes)), name == "prolip"
    size = workload.VIT_B16["vision_width" if projects else "embed_dim"]
    labels = torch.arange(classes).repeat_interleave(shots)
    features = 10 * unit(len(labels), size, seed=5)
    order = torch.randperm(STEPS * BATCH, generator=torch.Generator().manual_seed(6)) % len(labels)
    batches = [torch.arange(len(labels))] * STEPS if projects else list(order.split(BATCH))
    scale, text = float(method.scale), method.text_features().detach()
    first = (method.clip.visual.projection() if projects else method.base_features()).detach().clone()
    multipliers = torch.linspace(0.1, 0.9, classes)
    # ProLIP learns P_0 + R / 100: a step of the rate r on R is one of r / 10,000 on P
    rate, part = (0.1, 0.01) if projects else (0.1, 1.0)
    method.multipliers, method.strength = multipliers, 1 / shots

    def loss_of(learned: Tensor, z: Tensor, y: Tensor) -> Tensor:
        if projects:
            logits = scale * F.normalize(z @ learned, dim=-1) @ text.T
            return F.cross_entropy(logits, y) + (learned - first).square().sum() / shots
        loss = F.cross_entropy(scale * F.normalize(z, dim=-1) @ F.normalize(learned, dim=-1).T, y)
        return loss if name == "zs_lp" else loss + (multipliers * (learned - first).square().sum(1)).mean()

    def reference() -> Tensor:
        learned = first.clone().requires_grad_()
        optimizer = torch.optim.SGD([learned], lr=rate * part**2, momentum=0.9)
        for rows in batches:
            optimizer.zero_grad()
            loss_of(learned, features[rows], labels[rows]).backward()
            optimizer.step()
        return learned.detach() - first

    def ours() -> Tensor:
        with torch.no_grad():
            method.residual.zero_()
        optimizer = torch.optim.SGD([method.residual], lr=rate, momentum=0.9)
        for rows in batches:
            optimizer.zero_grad()
            method.losses(features[rows], labels[rows])["total"].backward()
            optimizer.step()
        return part * method.residual.detach()

    return reference, ours


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--shots", type=int, default=16)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    found = []
    print("| method | reference, s | daptune, s | times faster | difference |\n|---|---|---|---|---|")
    for name in ("gda", *METHODS):
        sizes = options.classes, options.shots
        runs = closed_form(*sizes) if name == "gda" else by_steps(name, *sizes)
        plain, learned = (run() for run in runs)  # the first run of each is not measured
        differs = float((plain - learned).abs().max() / plain.abs().max())
        times = list(by_turns(dict(zip(("reference", "daptune"), runs, strict=True)), options.repeats).values())
        found.append({"row": name, "seconds": times, "difference": differs})
        (reference, ours), spread = map(statistics.median, times), ratio(*times)
        print(f"| {name} | {reference:.2f} | {ours:.2f} | {spread} | {differs:.0e} |", flush=True)
    keep("features", {"threads": options.threads, "rows": found}, options.out)


if __name__ == "__main__":
    main()
