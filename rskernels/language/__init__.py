"""Fine-tuning of language models on their own answers, selected by reward.

``task`` is what a model is trained on.
"""

from rskernels.language.task import Task

__all__ = ["Task"]
