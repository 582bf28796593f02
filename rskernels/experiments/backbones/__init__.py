"""Backbones of others, under a head of ours: image models and encoders of texts.

`learner` says what of a run's inputs is computed once, and makes the model; `images` and `texts`
make the backbones, `weights` reads what they know.
"""

from rskernels.experiments.backbones.learner import (
    Learner,
    image_backbone,
    in_batches,
    make_learner,
)

__all__ = ["Learner", "image_backbone", "in_batches", "make_learner"]
