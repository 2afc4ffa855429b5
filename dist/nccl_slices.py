"""Arrays in slices among the GPUs of one host: each local rank gets the host's sum of one, and hands it out later.

In the flow prototxt → graph → net → solver → communicator → snapshot nccl_hierarchical.py does the one before, the
other after each slice has gone between hosts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from dtrain.dist.nccl_lane import DeviceArray
from dtrain.dist.sums import slice_bounds
from dtrain.dist.topology import Topology


class Slices:
    """NCCL's calls with slices, as many on every host as the one with the fewest ranks has; k is local rank k's.

    They are grouped reductions and broadcasts of one root each, which is what ncclReduceScatter and ncclAllGather
    are, but for slices of any length and for ranks that have none. Where a host has one rank there is nothing to do.

    Arguments:
        cupy: cupy's module.
        nccl: NCCL's communicator of the ranks of this host.
        stream: what is given the calls.
    """

    def __init__(self, cupy: Any, nccl: Any, stream: Any, topology: Topology) -> None:
        self._module = cupy.cuda.nccl
        self._nccl = nccl
        self._stream = stream
        self._local_rank, self._local_size = topology.local_rank, topology.local_size
        self.count = min(Counter(topology.hosts).values())

    @property
    def has_own(self) -> bool:
        """Whether this rank has a slice."""
        return self._local_rank < self.count

    def own(self, array: DeviceArray) -> DeviceArray:
        """Return this rank's slice of `array`, (n,), as a view; the same elements on all hosts."""
        start, end = slice_bounds(array.size, self.count)[self._local_rank :][:2]
        return array[start:end]

    def sum(self, values: DeviceArray) -> None:
        """Overwrite each rank's slice of `values`, (n,), with its sum over the host; the rest means nothing then."""
        self._call_with_each(self._nccl.reduce, values, self._module.NCCL_SUM)

    def hand_out(self, array: DeviceArray) -> None:
        """Overwrite each slice of `array`, (n,), with that of the rank whose it is."""
        self._call_with_each(self._nccl.broadcast, array)

    def _call_with_each(self, call: Callable[..., None], array: DeviceArray, *operation: int) -> None:
        if self._local_size == 1:
            return
        kind = getattr(self._module, f"NCCL_{array.dtype.name.upper()}")
        self._module.groupStart()
        for root, (start, end) in enumerate(pairwise(slice_bounds(array.size, self.count))):
            if start < end:
                pointer = array.data.ptr + start * array.itemsize
                call(pointer, pointer, end - start, kind, *operation, root, self._stream.ptr)
        self._module.groupEnd()
