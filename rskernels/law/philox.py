"""The uniform law: every draw is a pure function of (seed, row, column, stream).

Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) with
key = (seed low, seed high) and counter = (row low, row high, column // 4, stream). Its word
column % 4 leads, so that one counter serves four columns; the same word of the counter whose
stream is TRAILING more gives the 32 bits that follow, which few decisions need. Nothing is
advanced, so a draw does not depend on batch, order, launch or device.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

from rskernels._python.integers import as_integer
from rskernels.law.seeds import check_row_offset, check_seed, check_stream
from rskernels.law.streams import Stream

ROUNDS = 10
MULTIPLIER_0 = 0xD2511F53
MULTIPLIER_1 = 0xCD9E8D57
WEYL_0 = 0x9E3779B9
WEYL_1 = 0xBB67AE85
WORD = 0xFFFFFFFF

COLUMNS = 4
"""Columns that one counter serves, a word each."""
TRAILING = 1 << 31
"""What is added to a stream for the words that trail; hence streams are below it."""

# Up to this word the 65-bit numerator of u fits an int64; above it w0 and a sticky bit decide.
SMALL_WORD = 1 << 26


def philox4x32(counter: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """Apply the Philox4x32-10 bijection.

    Parameters
    ----------
    counter : Tensor
        int64 ``[..., 4]``, each entry a 32-bit word in ``[0, 2**32)``.
    key : Tensor
        int64 ``[..., 2]``, words likewise; leading dimensions broadcast with those of ``counter``.

    Returns
    -------
    Tensor
        int64 ``[..., 4]``, the words w0..w3.

    Raises
    ------
    TypeError
        If an argument is no int64 tensor.
    ValueError
        If the last dimension is not 4 (counter) or 2 (key).
    """
    for name, words, size in (("counter", counter, 4), ("key", key, 2)):
        if not isinstance(words, torch.Tensor):
            raise TypeError(f"{name} must be an int64 tensor, got {type(words).__name__}")
        if words.dtype != torch.int64:
            raise TypeError(f"{name} must be int64, got {words.dtype}")
        if words.dim() == 0 or words.shape[-1] != size:
            raise ValueError(f"{name} must have shape [..., {size}], got {list(words.shape)}")
    c0, c1, c2, c3 = counter.unbind(-1)
    k0, k1 = key.unbind(-1)
    for _ in range(ROUNDS):
        # The 64-bit products wrap as int64; shift and mask still give their two words.
        product_0 = c0 * MULTIPLIER_0
        product_1 = c2 * MULTIPLIER_1
        c0, c1, c2, c3 = (
            ((product_1 >> 32) & WORD) ^ c1 ^ k0,
            product_1 & WORD,
            ((product_0 >> 32) & WORD) ^ c3 ^ k1,
            product_0 & WORD,
        )
        k0 = (k0 + WEYL_0) & WORD
        k1 = (k1 + WEYL_1) & WORD
    return torch.stack(torch.broadcast_tensors(c0, c1, c2, c3), dim=-1)


def word_uniform(lead: torch.Tensor, trail: torch.Tensor) -> torch.Tensor:
    """Return ``(lead * 2**32 + trail + 1/2) / 2**64``, rounded once to float32, in ``(0, 1]``.

    The 65-bit numerator is odd. Where ``lead`` is large its lowest bit may therefore stand for all
    that lies below it (a sticky bit); where it is small the whole numerator fits an int64.
    """
    large = (lead | 1).to(torch.float32) * 2.0**-32
    small_lead = torch.where(lead < SMALL_WORD, lead, 0)
    small = ((small_lead << 33) + 2 * trail + 1).to(torch.float32) * 2.0**-65
    return torch.where(lead < SMALL_WORD, small, large)


def seed_words(seed: int | torch.Tensor, device: torch.device | str) -> torch.Tensor:
    """Return the Philox key ``[2]`` (int64 words) of a 64-bit seed, ``[N, 2]`` of N seeds."""
    if isinstance(seed, torch.Tensor):
        seed = (seed.reshape(()) if seed.numel() == 1 else seed).to(device)
        return torch.stack((seed & WORD, (seed >> 32) & WORD), dim=-1)
    return torch.tensor([seed & WORD, (seed >> 32) & WORD], dtype=torch.int64, device=device)


def row_uniforms(
    rows: torch.Tensor, columns: torch.Tensor | int, seed: int | torch.Tensor, stream: int
) -> torch.Tensor:
    """Return the float32 uniform of each (row, column); ``rows`` and ``columns`` broadcast."""
    return word_uniform(*_both_words(rows, columns, seed, stream))


def row_uniforms_64(
    rows: torch.Tensor, columns: torch.Tensor | int, seed: int | torch.Tensor, stream: int
) -> torch.Tensor:
    """Return the same uniforms rounded to float64: those by which an entry of a row is drawn."""
    lead, trail = (word.double() for word in _both_words(rows, columns, seed, stream))
    return lead * 2.0**-32 + (trail + 0.5) * 2.0**-64


def _both_words(
    rows: torch.Tensor, columns: torch.Tensor | int, seed: int | torch.Tensor, stream: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the leading and trailing word of each (row, column)."""
    column_ids = torch.as_tensor(columns, dtype=torch.int64, device=rows.device)
    rows, column_ids = torch.broadcast_tensors(rows, column_ids)
    key = seed_words(seed, rows.device)
    lead, trail = (_words(rows, column_ids, key, which) for which in (stream, stream + TRAILING))
    return lead, trail


def _words(
    rows: torch.Tensor, columns: torch.Tensor, key: torch.Tensor, stream: int
) -> torch.Tensor:
    """Return the word of each (row, column) of a stream."""
    streams = torch.full_like(rows, stream)
    quarters = columns // COLUMNS
    counter = torch.stack((rows & WORD, (rows >> 32) & WORD, quarters & WORD, streams), dim=-1)
    words = philox4x32(counter, key)
    return words.gather(-1, (columns % COLUMNS)[..., None]).squeeze(-1)


def uniforms(
    shape: int | tuple[int, ...] | torch.Size,
    *,
    seed: int | torch.Tensor,
    row_offset: int = 0,
    stream: int = Stream.ACCEPT,
    columns: int | None = None,
    device: torch.device | str = "cpu",
) -> torch.Tensor:
    """Return the uniforms that the masks compare with.

    ``u = (lead * 2**32 + trail + 1/2) / 2**64``, rounded once to float32 and returned as float64.
    ``lead`` is word ``column % 4`` of Philox4x32-10 with key (seed low, seed high) and counter (row
    low, row high, column // 4, stream); ``trail`` is the same word with the stream + 2**31.

    Parameters
    ----------
    shape : int or tuple of int
        Shape of the rows; row ids run from ``row_offset`` in row-major order.
    seed : int or Tensor
        A 64-bit int, or an int64 tensor of one element on ``device``.
    row_offset : int
        Id of the first row.
    stream : int
        Which use of randomness, in ``[0, 2**31)``; stream 0 is acceptance.
    columns : int, optional
        None draws one uniform a row (column 0, as the per-target masks do). An int V adds a last
        dimension of V columns, as the dense masks do.
    device : torch.device or str
        Where the result is made.

    Returns
    -------
    Tensor
        float64 of shape ``shape`` or ``shape + (columns,)``, inside (0, 1].

    Raises
    ------
    TypeError, ValueError
        If seed, stream, row_offset, shape or columns is not as above.
    """
    sizes = shape if isinstance(shape, Iterable) else (shape,)
    size = tuple(as_integer("shape", n, "an int or ints") for n in sizes)
    if any(n < 0 for n in size):
        raise ValueError(f"shape must hold ints of at least 0, got {shape}")
    if columns is not None:
        columns = as_integer("columns", columns, "None or an int")
        if columns < 1:
            raise ValueError(f"columns must be None or at least 1, got {columns}")
    seed, stream = check_seed(seed), check_stream(stream)
    count = torch.Size(size).numel()
    rows = check_row_offset(row_offset) + torch.arange(count, dtype=torch.int64, device=device)
    if columns is None:
        return row_uniforms(rows, 0, seed, stream).to(torch.float64).reshape(size)
    ids = torch.arange(columns, dtype=torch.int64, device=device)
    values = row_uniforms(rows[:, None], ids, seed, stream)
    return values.to(torch.float64).reshape(*size, columns)
