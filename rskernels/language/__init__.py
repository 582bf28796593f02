"""Fine-tuning of language models on their own answers, selected by reward.

``run.fine_tune`` runs the rounds of ``loop`` in a folder; ``task`` is what a model is trained on.
"""

from rskernels.language.config import LanguageConfig
from rskernels.language.evaluate import pass_at_k
from rskernels.language.policy import Policy
from rskernels.language.run import fine_tune
from rskernels.language.task import Task, mixed

__all__ = ["LanguageConfig", "Policy", "Task", "fine_tune", "mixed", "pass_at_k"]
