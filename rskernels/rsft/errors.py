"""What is raised where training cannot start or go on."""


class TrainingError(RuntimeError):
    """Training cannot go on: the loss, the logits or the envelope constant are not finite."""


class CheckpointError(RuntimeError):
    """A checkpoint that is absent, damaged, or of another run or data; or a folder in use."""


class DataError(ValueError):
    """Data that are missing, malformed, of one class, or cannot give what is asked of them."""
