"""T6: decisions at other rows, columns, seeds and streams are independent fair coins.

Two independent fair bits differ half of the time; bits that share their draw never do.
"""

import itertools

import numpy as np
import pytest
import torch

from rskernels.law.philox import COLUMNS

from ..forms import FORMS, decisions, row_blocks
from ..intervals import assert_inside, binomial, fair_sum
from ..tails import tails

NEAR = 128
SEEDS = (1, -1, 2**31, 2**32, 2**33, -(2**62))
STREAMS = (1, 2, 3, 2**16, 2**31 - 1)
LAGS_OF_ENTRIES = (1, 2, 3, 8, 15, 16, 17, 32, 64, 128)


def differing(one, other):
    return np.count_nonzero(one ^ other)


def check_pairs(name, pairs):
    for what, one, other in pairs:
        interval = binomial(len(one), 1 / 2, tests=len(pairs))
        assert_inside(f"T6 {name}: {what}", differing(one, other), interval)


def check_independence(subject, seed, rows=1 << 18):
    """134 comparisons: sensitive to a seed used for two streams and to draws that repeat."""

    def fair(*, seed=seed, **law):
        return fair_bits(FORMS["bernoulli"], subject, rows, seed=seed, **law)

    bits, compared = fair(), rows - NEAR
    lags = [*range(1, 97), *(NEAR - 1 - n for n in range(4))]
    others = {
        **{f"seed {delta:+}": fair(seed=seed + delta) for delta in SEEDS},
        **{f"stream {stream}": fair(stream=stream) for stream in STREAMS},
        **{f"row +{offset}": fair(row_offset=offset) for offset in (rows, 2**32, 2**40)},
        "seed +1, row +1": fair(seed=seed + 1, row_offset=1),
        "seed +1, stream 1": fair(seed=seed + 1, stream=1),
    }
    entries, columns = fair_entries(subject, rows, seed)
    others |= {"entries": entries, "entries by column": columns}
    pairs = [(f"lag {lag}", bits[lag : lag + compared], bits[:compared]) for lag in lags]
    pairs += [(name, other[:compared], bits[:compared]) for name, other in others.items()]
    pairs += [
        (f"entries, lag {lag}", entries[lag : lag + compared], entries[:compared])
        for lag in LAGS_OF_ENTRIES
    ]
    words = entries.reshape(-1, COLUMNS).T
    pairs += [
        (f"words {j} and {k} of a counter", words[j], words[k])
        for j, k in itertools.combinations(range(COLUMNS), 2)
    ]
    assert len(pairs) == 134
    check_pairs("draws", pairs)


def check_keys(subject, seed, form="target", draws=1 << 16):
    """Sensitive to part of the key being left out, and to draws that a launch repeats."""
    name, form = form, FORMS[form]
    shifts = {f"seed {delta:+}": {"seed": seed + delta} for delta in SEEDS}
    for offset in (draws // form.width, 2**32, 2**40):
        shifts[f"row +{offset}"] = {"row_offset": offset}
    if name == "bernoulli":
        shifts |= {f"stream {stream}": {"stream": stream} for stream in STREAMS}
    bits = fair_bits(form, subject, draws, seed=seed)
    pairs = [
        (what, fair_bits(form, subject, draws, **{"seed": seed, **law}), bits)
        for what, law in shifts.items()
    ]
    check_pairs(name, pairs)
    check_every_lag(name, bits)


def check_ids(subject, seed, draws=1 << 12):
    """Sensitive to ids that are not those given, whole and in their rows' order."""
    log_ratio = torch.full((draws,), np.log(0.5))
    order = torch.randperm(draws, generator=torch.Generator().manual_seed(seed % 2**32))
    for offset in (0, 2**33):
        counted = subject.bernoulli(log_ratio, seed=seed, row_offset=offset)
        named = subject.bernoulli(log_ratio, seed=seed, ids=order + offset)
        assert torch.equal(named, counted[order]), f"T6 ids: from {offset}, not as rows that count"
    lows = subject.bernoulli(log_ratio, seed=seed, ids=order)
    check_pairs("ids", [("another high word", named.numpy(), lows.numpy())])


def check_tails(subject, seed, rows=1 << 10, columns=1 << 12):
    """Sensitive to trailing words that go with the leading ones, the entry's or a neighbour's."""
    found = tails(subject, seed, rows, columns)
    mask = subject.mask(torch.zeros(columns).expand(rows, -1), None, 0.5 / columns, seed=seed)
    is_lower = found.is_lower.numpy()
    pairs = [("its own step", (found.steps % 2 == 0).numpy(), is_lower)]
    for down, right in ((0, 1), (0, 2), (0, 3), (0, -1), (0, -2), (0, -3), (1, 0), (-1, 0)):
        neighbours = mask.roll((-down, -right), (0, 1))[found.rows, found.columns]
        pairs.append((f"the entry {down} down, {right} right", neighbours.numpy(), is_lower))
    check_pairs("trailing words", pairs)


def check_every_lag(name, bits):
    """Sensitive to draws that repeat at any distance, such as that of units of work or threads."""
    signs = 2.0 * bits - 1
    # Padded with zeros, so that no lag wraps around.
    sums = np.fft.irfft(np.abs(np.fft.rfft(signs, 2 * len(signs))) ** 2)
    lags = np.arange(1, len(signs))
    excess = np.abs(sums[lags]) / fair_sum(len(signs) - lags, tests=len(lags))
    worst = excess.argmax()
    assert_inside(f"T6 {name}: lag {lags[worst]}", float(excess[worst]), (0.0, 1.0))


def fair_bits(form, subject, draws, **law):
    return decisions(form, subject, draws, 1 / 2, **law).numpy()


def fair_entries(subject, draws, seed):
    """Return a dense decision's entries, row after row and column after column.

    Their rows come after the first ``draws``, with which their first column would share its draws.
    """
    V = 1 << (draws.bit_length() // 2)
    mask = torch.cat(
        [
            subject.mask(
                torch.zeros(rows.stop - rows.start, V),
                None,
                0.5 / V,
                seed=seed,
                row_offset=draws + rows.start,
            )
            for rows in row_blocks(draws // V, V)
        ]
    )
    return mask.flatten().numpy(), mask.T.flatten().numpy()


def test_t6_independence(subject, size, seed):
    check_independence(subject, seed, size(1 << 24, reference=1 << 16, interpreted=1 << 13))


@pytest.mark.parametrize("form", FORMS)
def test_t6_keys(subject, kind, size, seed, form):
    if kind == "interpreted" and FORMS[form].interpreted < 1 << 10:
        pytest.skip("interpreted Triton takes milliseconds a row")
    check_keys(subject, seed, form, size(1 << 20, reference=1 << 15, interpreted=1 << 13))


def test_t6_ids(subject, seed):
    check_ids(subject, seed)


def test_t6_trailing_words(subject, size, seed):
    check_tails(subject, seed, size(1 << 10, reference=1 << 6, interpreted=1 << 4))
