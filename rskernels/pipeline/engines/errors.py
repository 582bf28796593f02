"""What is raised where an engine cannot go on."""


class EngineError(RuntimeError):
    """Workers that ended again and again, or an engine that cannot be started."""
