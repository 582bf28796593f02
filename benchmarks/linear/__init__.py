"""Decisions and losses from hidden states, beside forms that store the logits."""
