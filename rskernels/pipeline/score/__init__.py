"""Scores for the rows of data sets, before they are selected: rewards, or log-probabilities.

``scorer`` says what a score is; ``reward`` calls a function and ``log_prob`` a language model.
``rows`` reads whole rows and writes them with their scores, ``job`` does so with a piece, and
``run`` is the whole.
"""

from rskernels.pipeline.score.log_prob import LogProb
from rskernels.pipeline.score.reward import Reward
from rskernels.pipeline.score.run import score
from rskernels.pipeline.score.scorer import ScoreConfig, Scorer

__all__ = ["LogProb", "Reward", "ScoreConfig", "Scorer", "score"]
