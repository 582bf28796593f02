"""The ``rskernels`` command."""
