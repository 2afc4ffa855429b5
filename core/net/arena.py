"""The arena: all learned params of a net in one run of memory, and all their diffs in another.

Diffs lie in the order in which backward makes them ready (last layer first), so that a bucket for all-reduce
is a slice and needs no packing. A few extra values behind the diffs travel with them (see solver.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtrain.core.net.params import Param
from dtrain.core.tensor import ALIGNMENT_BYTES, aligned_zeros


class Arena:
    """Contiguous float32 memory for the data and diffs of `params`, which move into it.

    params: the ones that get gradients, in the order of forward. num_extra: values appended behind the diffs.

    data, diff, reduced (diff and the extra values) and extra are host arrays. An engine may hold newer values
    elsewhere, so ask for them by the methods.
    """

    def __init__(self, params: Sequence[Param], num_extra: int = 0) -> None:
        self.params = list(params)
        ready_order = list(reversed(params))
        step = ALIGNMENT_BYTES // np.dtype(np.float32).itemsize
        starts, count = [], 0
        for param in ready_order:
            starts.append(count)
            count += -(-param.blob.count // step) * step  # each param starts on a cache line
        self.data: NDArray[Any] = aligned_zeros(count)
        self.reduced: NDArray[Any] = aligned_zeros(count + num_extra)
        self.diff = self.reduced[:count]
        self.extra = self.reduced[count:]
        for param, start in zip(ready_order, starts, strict=True):
            end = start + param.blob.count
            param.blob.data_tensor.move_into(self.data[start:end])
            param.blob.diff_tensor.move_into(self.diff[start:end])

    def update_data(self) -> NDArray[Any]:
        """Return the data of all params for changing: the newest values, and the only ones from now on."""
        for param in self.params:
            param.blob.update_data()
        return self.data

    def update_reduced(self) -> NDArray[Any]:
        """Return the diffs and the extra values for changing: the newest, and the only ones from now on."""
        for param in self.params:
            param.blob.update_diff()
        return self.reduced

    def clear(self) -> None:
        """Set the diffs and the extra values to 0, wherever they are."""
        for param in self.params:
            param.blob.write_diff()
        self.reduced[...] = 0
