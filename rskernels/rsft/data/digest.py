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
        Of any dtype, on any device; None stands for one that is not there.
    """
    sha = hashlib.sha256()
    for tensor in tensors:
        if tensor is None:
            sha.update(b"none;")
            continue
        sha.update(f"{tensor.dtype} {list(tensor.shape)};".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        sha.update(flat.view(torch.uint8).numpy().data)
    return sha.hexdigest()
