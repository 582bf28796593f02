"""Where passes run: an engine calls a job on pieces, on one machine or many."""

from rskernels.pipeline.engines.local import Engine, LocalEngine

__all__ = ["Engine", "LocalEngine"]
