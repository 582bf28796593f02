"""What ``rskernels compare`` and ``rskernels demo`` run: cases, networks and synthetic data."""
