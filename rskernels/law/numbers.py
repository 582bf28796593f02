"""The numbers that every backend shares: margins, ends of float32, and what a summary counts."""

from __future__ import annotations

LOG2_E = 1.4426950408889634

MARGIN = 2.0**-14
"""What two float32 passes over a row can differ by, in log q."""
FLOAT32_ROUNDING = 2.0**-23
"""Of rounding to float32, relative."""
FLOAT64_ROUNDING = 2.0**-50
"""Of float64 arithmetic on a few terms, relative to the largest."""

FLOAT32_MOST = 2.0**128 - 2.0**104
"""The largest float32."""
LARGEST_SCALE = 3.0e38
"""The largest inverse temperature: finite in float32."""
LEAST_TEMPERATURE, MOST_TEMPERATURE = 1e-30, 1e30
"""Beyond, the scale 1/T of a float32 logit overflows or vanishes."""

LEAST_LOG = -708.0
"""Of a probability, the least log that counts: its exponential is a normal float64. Below is 0."""

ACCEPTED, VIOLATIONS, INVALID, IGNORED, EXCESS, MASS, SUMMARY = range(7)
"""The order of what is summed of decisions, four counts and two sums, and how many there are."""
SUMMARY_COUNTS, SUMMARY_SUMS = slice(ACCEPTED, EXCESS), slice(EXCESS, SUMMARY)
