"""``rejection_sample`` beside sbi's sampler, and beside torch's draws alone."""
