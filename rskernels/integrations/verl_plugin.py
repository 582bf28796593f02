"""Installs the rules in verl when imported: ``VERL_USE_EXTERNAL_MODULES`` names this module.

``RSKERNELS_SEED`` is the seed of decisions, 0 where it is not set.
"""

import os

from rskernels.integrations.verl import install

install(seed=int(os.environ.get("RSKERNELS_SEED", "0")))
