"""Whether the harness measures what it says."""
