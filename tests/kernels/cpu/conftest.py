"""The folders of kernels that are compiled."""

from ...support.kernel_cache import folder, only_temporary

__all__ = ["folder", "only_temporary"]
