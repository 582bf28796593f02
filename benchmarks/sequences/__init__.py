"""Decisions about sequences against the sums that they contain."""
