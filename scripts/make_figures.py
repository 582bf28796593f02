"""Draw the figures of the README and of the theory pages: make figures.

They are drawn without a background, in colours that are read on white and on dark alike.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from torch.distributions import Beta, Normal

import rskernels

FIGURES = Path(__file__).parents[1] / "docs" / "figures"
INK, BLUE, GREEN, RED, GOLD = "#808791", "#3b8eea", "#27a567", "#e5533d", "#d99a1c"
STYLE = {
    "axes.edgecolor": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK,
    "text.color": INK, "axes.spines.top": False, "axes.spines.right": False, "font.size": 11,
    "legend.frameon": False, "lines.linewidth": 2, "svg.hashsalt": "rskernels",
}  # fmt: skip


def envelope() -> plt.Figure:
    """Draw proposals under an envelope: those below p are accepted."""
    x = torch.linspace(0.001, 0.999, 500, dtype=torch.float64)
    p, M = Beta(2.7, 6.3).log_prob(x).exp().numpy(), 2.8
    generator = torch.Generator().manual_seed(7)
    draws = torch.rand(170, generator=generator, dtype=torch.float64)
    log_ratio = Beta(2.7, 6.3).log_prob(draws)
    mask = rskernels.bernoulli_mask(log_ratio, M, seed=3).numpy()
    height = M * rskernels.uniforms((170,), seed=3).numpy()
    figure, axes = plt.subplots(figsize=(7.4, 3.5))
    axes.fill_between(x, p, M, color=RED, alpha=0.10, lw=0)
    axes.fill_between(x, p, color=GREEN, alpha=0.16, lw=0)
    axes.plot(x, np.full(500, M), color=BLUE, label="envelope M·q(x)")
    axes.plot(x, np.ones(500), color=BLUE, ls="--", lw=1.4, label="proposal q(x)")
    axes.plot(x, p, color=GREEN, label="target p(x)")
    axes.scatter(draws[mask], height[mask], s=16, color=GREEN, label="accepted")
    axes.scatter(draws[~mask], height[~mask], s=18, color=RED, marker="x", lw=1, label="rejected")
    axes.set(xlim=(0, 1), ylim=(0, 3.0), xlabel="x, drawn from q", ylabel="u · M · q(x)")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def policies() -> plt.Figure:
    """Let four policies follow ratios whose scale grows tenfold and falls back."""
    generator = torch.Generator().manual_seed(0)
    steps, rows = 120, 256
    shown = {"max": RED, "decayed:4096": GOLD, "quantile:0.9": BLUE, "budget:0.5": GREEN}
    figure, (above, below) = plt.subplots(2, 1, figsize=(7.4, 4.6), sharex=True)
    streams = 1.2 * torch.randn(steps, rows, generator=generator, dtype=torch.float64)
    streams += 2.3 * torch.exp(-(((torch.arange(steps) - 55) / 18.0) ** 2))[:, None]
    for text, colour in shown.items():
        learns = None if text in ("max", "decayed:4096") else 4096
        policy = rskernels.Envelope.parse(text, half_life=learns)
        policy.update(streams[0])
        M, acceptance = [], []
        for log_ratio in streams:
            log_M = policy.log_M()
            M.append(log_M.exp().item())
            acceptance.append((log_ratio - log_M).clamp(max=0).exp().mean().item())
            policy.update(log_ratio)
        above.semilogy(M, color=colour, label=text)
        below.plot(acceptance, color=colour)
    largest = streams.exp()
    above.fill_between(range(steps), *np.quantile(largest, [0.5, 1.0], axis=1), color=INK,
                       alpha=0.22, lw=0, label="median to\nlargest ratio")  # fmt: skip
    above.set(ylabel="M")
    above.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    below.set(xlabel="batch", ylabel="acceptance", xlim=(0, steps - 1), ylim=(0, 1))
    return figure


def trade() -> plt.Figure:
    """Show acceptance and excess mass against M, for log-normal ratios."""
    log_w = 1.2 * Normal(0.0, 1.0).icdf(torch.linspace(5e-6, 1 - 5e-6, 100_000).double()) - 0.72
    w = log_w.exp()
    log_M = torch.linspace(-2.2, 5.0, 120, dtype=torch.float64)
    acceptance = [(w / M.exp()).clamp(max=1).mean().item() for M in log_M]
    excess = [((w - M.exp()).clamp(min=0).sum() / w.sum()).item() for M in log_M]
    figure, axes = plt.subplots(figsize=(7.4, 3.3))
    axes.semilogx(log_M.exp(), acceptance, color=GREEN, label="acceptance")
    axes.semilogx(log_M.exp(), excess, color=RED, label="excess mass δ, the bias")
    marks = {
        "budget:0.5 ": log_M.exp()[np.argmin(np.abs(np.array(acceptance) - 0.5))],
        "quantile:0.9": w.quantile(0.9),
        "max of 10⁵": w.max(),
    }
    for name, M in marks.items():
        axes.axvline(M.item(), color=INK, ls=":", lw=1.3)
        side = "right" if name.endswith(" ") else "left"
        axes.text(M.item() * 1.05, 1.03, name, fontsize=10, ha=side)
    axes.set(xlabel="M", ylim=(0, 1.12), xlim=(0.11, 148))
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def violation() -> plt.Figure:
    """Draw a target that stands out of its envelope, and the law that is then accepted."""
    x = torch.linspace(-4, 4, 600, dtype=torch.float64)
    q = Normal(0.0, 1.5).log_prob(x).exp().numpy()
    p = (
        0.6 * Normal(-1.0, 0.7).log_prob(x).exp() + 0.4 * Normal(1.2, 0.4).log_prob(x).exp()
    ).numpy()
    M = 1.45
    kept = np.minimum(p, M * q)
    accepted = kept / kept.sum() / (x[1] - x[0]).item()
    figure, axes = plt.subplots(figsize=(7.4, 3.3))
    axes.plot(x, M * q, color=BLUE, label="envelope M·q(x)")
    axes.plot(x, p, color=GREEN, label="target p(x)")
    axes.plot(x, accepted, color=GOLD, ls="--", label="what is accepted")
    axes.fill_between(x, kept, p, where=p > kept, color=RED, alpha=0.35, lw=0,
                      label="excess mass δ")  # fmt: skip
    axes.set(xlim=(-4, 4), ylim=(0, None), xlabel="x")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def lazy() -> plt.Figure:
    """Follow the softmax's denominator along two rows, to where each is certain."""
    generator = torch.Generator().manual_seed(11)
    V = 32_000
    figure, axes = plt.subplots(figsize=(7.4, 3.3))
    for height, colour, label in (
        (5.5, RED, "rejected, and left here"),
        (8.4, GREEN, "accepted, read to its end"),
    ):
        logits = 1.8 * torch.randn(V, generator=generator, dtype=torch.float64)
        logits[1500] = height
        total = logits.exp().cumsum(0)
        limit = (logits[1500].exp() / (0.42 * 0.02)).item()
        passed = int((total > limit).nonzero()[0]) if bool((total > limit).any()) else None
        read = total[: passed or V] / limit
        axes.plot(range(len(read)), read, color=colour, label=label)
        if passed:
            axes.plot(range(passed, V), total[passed:] / limit, color=colour, ls=":", lw=1.3,
                      label="not read")  # fmt: skip
            axes.plot(passed, 1, "o", color=colour, ms=8)
    axes.axhline(1, color=INK, lw=1.3)
    axes.text(V * 0.70, 1.05, "certain to be rejected", fontsize=10)
    axes.set(xlim=(0, V), ylim=(0, 2.4), xlabel="columns read",
             ylabel="Σ exp(z) over what rejects")  # fmt: skip
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


BOXES = {
    "cli": (0, 7, 4.2, "the command"),
    "experiments": (0, 6, 4.2, "compare and demo"),
    "language": (0, 5, 4.2, "models on own answers"),
    "pipeline": (5.5, 5, 3.9, "data sets in files"),
    "rsft": (0, 4, 4.2, "training loops and rules"),
    "integrations": (5.5, 4, 3.9, "trainers of others"),
    "select": (5.5, 3, 3.9, "answers by reward"),
    "sampling": (0, 3, 4.2, "rejection_sample"),
    "envelope": (0, 2, 4.2, "Envelope, estimate_M"),
    "ops": (0, 1, 4.2, "public operations, checks"),
    "_torch": (0, 0, 4.2, "schemas, autograd, compile"),
    "kernels": (0, -1, 4.2, "reference · cpu · gpu"),
    "distributed": (5.5, -1, 3.9, "several ranks"),
    "law": (0, -2, 4.2, "Philox, seeds, streams"),
    "_python": (0, -3, 4.2, "what all need of Python"),
    "python": (5.5, 2, 3.9, "pybind11: _core"),
    "csrc": (5.5, 1, 3.9, "C++20: sketches, policies"),
}


def architecture() -> plt.Figure:
    """Draw the folders and which imports which."""
    figure, axes = plt.subplots(figsize=(8.2, 6.8))
    for name, (left, level, width, about) in BOXES.items():
        colour = GOLD if name in ("python", "csrc") else BLUE
        axes.add_patch(FancyBboxPatch((left, level), width, 0.58, boxstyle="round,pad=0.04",
                                      fc=colour, ec=colour, alpha=0.16))  # fmt: skip
        axes.text(left + 0.15, level + 0.29, name, va="center", weight="bold")
        axes.text(left + width - 0.1, level + 0.29, about, va="center", ha="right", fontsize=9.5)
    arrows = [((2, level - 0.06), (2, level - 0.36)) for level in range(7, -3, -1)]
    arrows += [((4.26, 2.29), (5.44, 2.29)), ((7.4, 1.94), (7.4, 1.64))]
    arrows += [((4.26, 2.04), (5.44, -0.42))]  # envelope to distributed
    arrows += [((5.44, 5.1), (4.26, 4.5))]  # pipeline to rsft and what is below
    arrows += [((9.2, 4.94), (9.2, 3.64))]  # pipeline to select, past integrations
    arrows += [((5.44, 4.1), (4.26, 3.5))]  # integrations to sampling and what is below
    arrows += [((5.44, 3.1), (4.26, 2.5))]  # select to envelope and what is below
    for start, end in arrows:
        axes.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=11, color=INK))
    axes.text(4.84, 2.4, "rows", fontsize=9, ha="center")
    axes.text(4.84, 2.02, "log M", fontsize=9, ha="center")
    axes.set(xlim=(-0.2, 9.6), ylim=(-3.2, 7.8))
    axes.axis("off")
    return figure


DRAWN: tuple[Any, ...] = (envelope, policies, trade, violation, lazy, architecture)


def main() -> None:
    """Draw all of them."""
    FIGURES.mkdir(parents=True, exist_ok=True)
    with plt.rc_context(STYLE):
        for draw in DRAWN:
            figure = draw()
            figure.savefig(FIGURES / f"{draw.__name__}.svg", transparent=True,
                           bbox_inches="tight", metadata={"Date": None})  # fmt: skip
            plt.close(figure)


if __name__ == "__main__":
    main()
