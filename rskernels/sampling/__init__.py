"""Exact draws from any target density through any proposal: ``rejection_sample``.

``rejection`` is the call, ``options`` what it asks for, ``run`` its loop, ``bound`` its M,
``draws`` its two densities, ``seeding`` its seeds; ``progress`` shows how far it is, ``limits``
says when it gives up, ``result`` what it returns.
"""

from rskernels.sampling.rejection import rejection_sample
from rskernels.sampling.result import RejectionError, RejectionReport, RejectionResult

__all__ = ["RejectionError", "RejectionReport", "RejectionResult", "rejection_sample"]
