"""What an envelope has seen, kept over threads, forks, ranks and checkpoints.

``store`` holds it, ``saved`` writes it down, and ``reduce`` joins that of several ranks.
"""

from rskernels.envelope.storage.store import Store

__all__ = ["Store"]
