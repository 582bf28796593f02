"""Where passes run: an engine calls a job on pieces, on one machine or many."""

from rskernels.pipeline.engines.choose import ENGINES, engine_of
from rskernels.pipeline.engines.errors import EngineError
from rskernels.pipeline.engines.local import Engine, Job, LocalEngine
from rskernels.pipeline.engines.on_ray import RayEngine

__all__ = ["ENGINES", "Engine", "EngineError", "Job", "LocalEngine", "RayEngine", "engine_of"]
