"""Rejection-sampling fine-tuning: training loops that decide by rejection what is used.

``train`` holds the gradient loop and its ``Config``, ``select`` the rules it chooses samples by,
``demo`` the comparison of the rules. ``tuned`` fine-tunes a proposal of ``proposals``, and
``inputs`` draws training inputs, through ``rskernels.rejection_sample``.
"""
