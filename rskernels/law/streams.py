"""Which use of randomness a draw is for: no two uses ever share a word."""

from __future__ import annotations

from enum import IntEnum


class Stream(IntEnum):
    """The last word of a Philox counter (see ``rskernels.uniforms``), in ``[0, 2**31)``.

    Callers may take any that is not the library's. Those from 2**31 on hold the trailing words.
    """

    ACCEPT = 0
    """Decisions of the masks and, by default, of ``bernoulli_mask``."""
    THIN = 1
    """Which earlier acceptances ``Envelope.thin`` keeps."""
    SAMPLE = 2
    """Decisions of ``rejection_sample``."""
    PROPOSAL = 3
    """Seeds of the proposals that ``rejection_sample`` draws from."""
    CHAIN = 4
    """Decisions of Metropolis chains over parameters."""
    SEQUENCE = 5
    """Decisions of ``accept_sequences``."""
    PREFIX = 6
    """Decisions of ``accept_prefix``."""
    SPECULATE = 7
    """Acceptances of draft tokens by ``speculative_sample``; a draft's place is the column."""
    RESIDUAL = 8
    """Its residual and bonus draws; the place of the token that is drawn is the column."""
    SELECT = 9
    """Decisions of ``select.tilt``, by the ids of its rows."""
    GENERATE = 10
    """Tokens of answers of a language model; a token's place in its answer is the column."""
    ORDER = 11
    """Orders in which rows come; the number of the pass is the column."""
