"""Rejection-sampling fine-tuning: training loops that decide by rejection what is used.

``loop`` is the gradient loop, ``rules`` how it selects samples, ``methods`` what it trains on.
"""
