"""The site is looked at where `make docs-check` has built it and names its folder."""

import os

collect_ignore = [] if "RSKERNELS_SITE" in os.environ else ["test_site.py"]
