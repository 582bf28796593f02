"""What an envelope has seen, as tensors that can be compared."""

import torch


def columns(envelope):
    """Return the options and a tensor a column, which once was the state dict."""
    store = envelope._store
    with store.lock:
        state = store.core.state()
    arrays = {name: torch.from_numpy(column) for name, column in state.items()}
    assert arrays.keys() >= {"seen", "max_log_ratio", "tail"}
    return {**store.options.to_dict(), **arrays}
