"""What an envelope has seen, as tensors that can be compared."""

from rskernels.envelope.state import columns_of


def columns(envelope):
    """Return the options and a tensor a column, which once was the state dict."""
    tensors = columns_of(envelope)
    assert tensors.keys() >= {"seen", "max_log_ratio", "tail"}
    options = {name: value for name, value in envelope.state_dict().items() if name != "state"}
    return {**options, **tensors}
