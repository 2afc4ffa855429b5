"""Saying something once for all ranks that a launcher started, before they can talk to each other.

Stands before the flow prototxt → graph → net → solver → communicator → snapshot: a wrong flag is found by
every rank.
"""

from __future__ import annotations

import os
import sys
import time

from dtrain.dist.claim import GRACE_S
from dtrain.dist.launch_environment import launched_rank
from dtrain.dist.supervisor import launch_claim


def say_once(text: str) -> None:
    """Print `text` on stderr, on one of this host's ranks; the others give that one time to print it.

    The first rank that exits with an error makes mpirun end the others, so they wait.
    """
    if launched_rank(os.environ) is None or launch_claim().take():
        print(text, file=sys.stderr, flush=True)
    else:
        time.sleep(GRACE_S)
