"""What rskernels costs, beside torch and beside an earlier revision of itself.

Each folder is run by itself: ``python -m benchmarks.cpu.run``, ``.gpu.run``, ``.envelope.run``,
``.sampling.run``, and ``.base.run`` for two revisions in turns. ``results`` holds the tables.
"""
