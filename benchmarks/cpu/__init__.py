"""Masks, log-probabilities and M on a CPU, beside torch and the speed of reading alone."""
