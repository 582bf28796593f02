"""What data are, whatever file they came from."""

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor


def digest(tensors: Iterable[Tensor | None]) -> str:
    """Return the SHA-256, in hexadecimal, of tensors: their order, dtypes, shapes and bytes.

    Parameters
    ----------
    tensors : iterable of Tensor or None
        Dense, of any dtype, on any device; None stands for one that is not there.

    Raises
    ------
    TypeError
        If a tensor has no bytes of its own: sparse, nested or on the device "meta".
    """
    sha = hashlib.sha256()
    for tensor in tensors:
        if tensor is None:
            sha.update(b"none;")
            continue
        if tensor.layout != torch.strided or tensor.is_nested or tensor.is_meta:
            raise TypeError(
                f"a digest is of dense tensors that hold numbers, got one of layout "
                f"{tensor.layout}{' (nested)' * tensor.is_nested} on {tensor.device}"
            )
        sha.update(f"{tensor.dtype} {list(tensor.shape)};".encode())
        flat = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous().reshape(-1)
        sha.update(flat.view(torch.uint8).numpy().data)
    return sha.hexdigest()
