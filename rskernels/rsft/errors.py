"""What is raised where training cannot start or go on."""


class TrainingError(RuntimeError):
    """Training cannot go on: the loss, the logits or the envelope constant are not finite."""


class CheckpointError(RuntimeError):
    """A checkpoint that is absent, damaged, or of another run."""


class DataError(ValueError):
    """Data that are missing or malformed, or that cannot give the imbalance or split asked for."""
