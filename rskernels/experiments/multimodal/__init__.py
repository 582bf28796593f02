"""One task in three modalities: digits as images, as speech and as mistyped words.

`data` loads and splits them, `network` reads their rows, `words` types and mistypes.
"""

from rskernels.experiments.multimodal.data import load_multimodal, load_spoken_digits
from rskernels.experiments.multimodal.network import MultimodalNetwork

__all__ = ["MultimodalNetwork", "load_multimodal", "load_spoken_digits"]
