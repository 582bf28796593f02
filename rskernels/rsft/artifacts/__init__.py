"""What a run leaves behind: checkpoints, metrics and figures."""
