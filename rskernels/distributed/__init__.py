"""What ranks do together: collectives over tensors, of a process group or the default one."""

from rskernels.distributed.collectives import all_gather, all_max, collective_device

__all__ = ["all_gather", "all_max", "collective_device"]
