"""The communicator of a job of one rank: every exchange is with itself.

In the flow prototxt → graph → net → solver → communicator → snapshot it lets the solver be written once, for
any number of ranks.
"""

from __future__ import annotations

import os
import socket
from typing import NoReturn

import numpy as np

from dtrain.dist.communicator import Array, Communicator
from dtrain.dist.flush import flush_output
from dtrain.dist.topology import topology_from_hosts


class SingleCommunicator(Communicator):
    """Be the only rank."""

    name = "single"
    takes_device_arrays = True
    captures = True

    def __init__(self) -> None:
        super().__init__(topology_from_hosts([socket.gethostname()], 0))

    def abort(self, exit_code: int) -> NoReturn:
        flush_output()
        os._exit(exit_code)  # not sys.exit, which would end no more than the calling thread

    def close(self) -> None:
        """Do nothing: there is nothing to give back."""

    def _accept(self, array: Array, writes: bool) -> None:
        """Take what is in a GPU's memory too: nothing touches it."""
        if isinstance(array, np.ndarray):
            super()._accept(array, writes)

    def _broadcast(self, array: Array, root: int) -> None:
        """Leave `array` as it is: it holds what the root has."""

    def _all_reduce(self, array: Array) -> None:
        """Leave `array` as it is: it is the sum of one."""

    def _all_gather(self, array: Array) -> Array:
        return array[None].copy()

    def _all_gather_bytes(self, payload: bytes) -> list[bytes]:
        return [payload]

    def _barrier(self) -> None:
        """Return at once: every rank is here."""
