"""What rejection buys off-policy: stale rollouts, each correction, and their bias and variance."""
__all__: list[str] = []
