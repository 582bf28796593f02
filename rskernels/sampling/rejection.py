"""Rejection sampling from any target log-density through any proposal."""

from __future__ import annotations

import math

import torch

from rskernels.envelope import Envelope
from rskernels.sampling.bound import Bound
from rskernels.sampling.draws import DrawSource, Proposal, Target
from rskernels.sampling.options import SamplingOptions
from rskernels.sampling.progress import ProgressBar
from rskernels.sampling.result import RejectionResult
from rskernels.sampling.run import SamplingRun
from rskernels.sampling.seeding import Generators, acceptance_seed

PROGRESS_TEXTS = (
    "{task.completed:,}/{task.total:,} draws",
    "acceptance {task.fields[rate]}",
    "log M {task.fields[log_M]:.4g}",
)


def rejection_sample(
    log_prob: Target,
    proposal: Proposal,
    num_samples: int,
    *,
    log_M: float | Envelope | None = None,
    on_violation: str | None = None,
    pilot: int = 4096,
    batch_size: int | None = None,
    max_proposals: int | None = None,
    max_seconds: float | None = None,
    min_acceptance: float = 1e-5,
    return_partial: bool = False,
    progress: bool = False,
    seed: int | None = None,
    generator: torch.Generator | None = None,
) -> RejectionResult:
    """Draw from the density proportional to exp(log_prob) by rejection from a proposal.

    A proposal x of q is accepted with probability min(1, w/M), w = p(x)/q(x) (von Neumann 1951).
    Where w ≤ M everywhere, accepted draws are exact and independent and the acceptance rate is
    ∫p / M, for densities that need not be normalised.

    Parameters
    ----------
    log_prob : callable or Distribution
        The target: draws ``[n, *event]`` to natural log densities, floating ``[n]``. NaN is
        rejected and counted, and so is +inf. Outside of the support of a Distribution the density
        is 0, whatever its ``validate_args``; a callable must return -inf there itself.
    proposal : Distribution or (sample, log_prob)
        A ``torch.distributions`` object without batch shape, or a pair: ``sample(n)`` returns n
        draws ``[n, *event]`` of any dtype and device, the same at every call, ``log_prob`` as
        above. The device of the draws is that of the result.
    num_samples : int
        How many to accept; 0 gives empty tensors.
    log_M : float or Envelope, optional
        log of M. float32 densities round: give it room of some 1e-6, or use float64. An Envelope
        learns from every proposal and keeps what it has learnt; while it has no M, draws of
        ``pilot`` go into it first. None is ``Envelope("max")``.
    on_violation : {"thin", "cap", "raise", "control"}
        What ratios above M lead to; with an Envelope, leave it out: its own counts. "thin", the
        default: M rises to the ratio, and earlier acceptances are taken back until they are what
        the larger M would have accepted. "cap": accepted, and the bias reported. "raise": an error.
        "control": accepted, with weight max(w, M)/M in ``log_weights`` (Liu, Chen & Wong 1998);
        where M moves, that is max(w, M met)/(M at the end), so that every proposal counts alike.
    pilot : int
        At least 1. Draws from which M is learnt, where there is none at first or a policy has none
        any more. They are not decided: an M that has seen the rows it decides biases them.
    batch_size : int, optional
        Draws at a time at most, pilot ones too; None goes by the acceptance so far.
    max_proposals : int, optional
        The most draws of the proposal to decide or pilot with.
    max_seconds : float, optional
        Wall time, looked at after each batch. Batches begin with one draw then and grow by a
        quarter of the draws so far, unless there is a ``batch_size``.
    min_acceptance : float
        In (0, 1]. Gives up when the acceptance rate is below it beyond doubt: with nothing
        accepted after 16 / min_acceptance proposals.
    return_partial : bool
        At a limit, return what there is instead of raising.
    progress : bool
        Show a bar on stderr; needs rich.
    seed : int, optional
        64 bits. Decides the acceptances, and the draws of any proposal that uses torch's default
        generators: they are seeded from it while ``sample`` runs, of one call at a time, and put
        back after it. Other threads that use them in that time disturb it. Random numbers of
        ``log_prob``, NumPy's and Python's are not decided by it.
    generator : torch.Generator, optional
        Where a seed is drawn from. Without both it comes from torch's default CPU generator, and
        the proposals from that of their device, so that ``torch.manual_seed`` reproduces all.

    Returns
    -------
    RejectionResult
        ``samples``, ``log_weights``, ``acceptance_rate``, ``proposals``, ``report``.

    Raises
    ------
    TypeError, ValueError
        If an argument, or what a callable returns, is not as above.
    RejectionError
        If a limit is reached; it names the acceptance rate and M.
    EnvelopeViolation
        With "raise", at a ratio above M.
    NoFiniteM
        With an Envelope "tail" whose ratios have no finite M.

    Warns
    -----
    UserWarning
        If the largest ratios look as if no finite M bounds them, be M given or learnt: the draws
        then follow the target only where the ratio is at most M. An Envelope "quantile" or
        "budget", which truncates by design, is not warned of.

    Notes
    -----
    Proposal i is accepted exactly when log w - log M ≥ log u with u the uniform of ``(seed, i)``
    on stream 2, and the first ``num_samples`` accepted are returned. For given proposals the
    result is therefore the same however they are cut into batches, where M is fixed or "max";
    other policies learn batch by batch. torch's own draws depend on the size of a batch, which
    follows from the arguments and the draws: equal calls give equal results on the same device,
    other than at ``max_seconds``. A pair whose ``sample`` has a generator of its own is
    reproducible as far as that is.

    With "thin" a fixed M is where M starts. The result is that of the final M given from the
    start, to the bit.

    References
    ----------
    von Neumann, "Various techniques used in connection with random digits", 1951. Caffo, Booth &
    Davison, "Empirical supremum rejection sampling", Biometrika 89, 2002. Liu, Chen & Wong,
    "Rejection control and sequential importance sampling", JASA 93, 1998.

    Examples
    --------
    >>> target = torch.distributions.Normal(0.0, 1.0)
    >>> proposal = torch.distributions.Laplace(0.0, 1.0)
    >>> result = rejection_sample(target, proposal, 1000, log_M=0.2743)
    >>> result.samples.shape
    torch.Size([1000])
    """
    options = SamplingOptions(
        num_samples=num_samples,
        pilot=pilot,
        batch_size=batch_size,
        max_proposals=max_proposals,
        max_seconds=max_seconds,
        min_acceptance=min_acceptance,
        return_partial=return_partial,
    )
    source, bound = DrawSource(log_prob, proposal), Bound(log_M, on_violation)
    key = acceptance_seed(seed, generator)
    generators = Generators(key if seed is not None or generator is not None else None)
    bar = ProgressBar(options.num_samples, PROGRESS_TEXTS, on=progress, rate="–", log_M=math.nan)
    with torch.no_grad(), bar:
        run = SamplingRun(source, bound, options, key, generators)
        return run.result(run.sample(bar))
