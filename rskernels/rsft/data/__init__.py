"""Data sets, their files, and what balances, shifts or drifts them."""
