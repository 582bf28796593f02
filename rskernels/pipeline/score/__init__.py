"""Scores for the rows of data sets, before they are selected: rewards, or log-probabilities.

``scorer`` says what a score is. ``reward`` calls a function, ``log_prob`` a language model, which
``causal`` reads. ``rows`` reads whole rows and adds their scores; ``job`` scores one piece, ``run``
all of a data set.
"""

from rskernels.pipeline.score.log_prob import LogProb
from rskernels.pipeline.score.reward import Reward
from rskernels.pipeline.score.run import score
from rskernels.pipeline.score.scorer import ScoreConfig, Scorer

__all__ = ["LogProb", "Reward", "ScoreConfig", "Scorer", "score"]
