"""What is raised where training cannot go on."""


class TrainingError(RuntimeError):
    """Training cannot go on: the loss, the logits or the envelope constant are not finite."""
