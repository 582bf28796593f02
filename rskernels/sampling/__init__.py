"""Exact draws from any target density through any proposal: ``rejection_sample``."""

from rskernels.sampling.rejection import RejectionError, RejectionResult, rejection_sample

__all__ = ["RejectionError", "RejectionResult", "rejection_sample"]
