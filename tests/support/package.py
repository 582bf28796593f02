"""Where the tested package is."""

import importlib.util
from pathlib import Path

FOLDER = Path(importlib.util.find_spec("rskernels").origin).parent
