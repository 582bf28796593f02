"""Rejection-sampling fine-tuning: training loops that decide by rejection what is used.

``config`` says what a run is, ``methods`` which loop serves it. ``train`` holds the gradient loop,
``select`` the rules it chooses samples by, ``task`` what it trains on: balanced classes, or the
shift of ``shift``, with inputs drawn as ``inputs`` draws. ``tuned`` fine-tunes a proposal of
``proposals``, ``parameter`` draws parameters, and ``diagnostics`` tells whether its chains have
converged. ``data`` and ``files`` read data sets, ``multimodal`` puts images, speech and ``words``
together, which the network of ``modalities`` reads and ``balance`` evens; ``drift`` moves their
priors and ``resample`` balances them, as one would without rejection. ``experiments`` declares what
is compared, ``compare`` runs it, ``comparison`` reckons what came of it and ``compare_report``
tells.
"""
