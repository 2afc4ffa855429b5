"""Requests: what a rank is asked for by signals, until it has travelled to all ranks with the gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtrain.core.solver.extra_values import Extra

NUM_REQUESTS = 2  # Extra.STOP and Extra.SNAPSHOT


class Requests:
    """This rank's requests since it last sent some. Safe to call in a signal handler."""

    def __init__(self) -> None:
        self._wanted = np.zeros(NUM_REQUESTS, np.float32)

    def ask(self, request: Extra) -> None:
        """Ask for Extra.STOP or Extra.SNAPSHOT; asking twice before it is sent is asking once."""
        self._wanted[request] = 1

    def send(self, values: NDArray[Any]) -> None:
        """Write 1 for each request, 0 for the others, into `values`, and forget what was written.

        Summed over all ranks they say how many ranks want it.
        """
        asked = self._wanted.copy()
        self._wanted -= asked  # what a signal asks for meanwhile stays for the next iteration
        values[...] = asked
