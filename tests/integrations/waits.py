"""A mode in which a number that is read on the host, a wait for a device, is an error."""

from torch.utils._python_dispatch import TorchDispatchMode


class NoWait(TorchDispatchMode):
    """Refuse ``Tensor.item`` and what else needs a tensor's values on the host."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = str(function)
        if any(wait in name for wait in ("_local_scalar_dense", "nonzero", "equal.default")):
            raise AssertionError(f"{name} waits for a device")
        return function(*args, **(kwargs or {}))
