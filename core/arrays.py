"""Arrays of the host and of a GPU alike: what is brought from one to the other by whoever keeps either kind.

Beside tensor.py, whose memories do this for blobs: histories of updates, sums over ranks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def to_host(array: Any) -> NDArray[Any]:
    """Return a copy of an array, numpy's or a GPU's, on the host."""
    copy: NDArray[Any] = array.copy() if isinstance(array, np.ndarray) else array.get()
    return copy


def assign(array: Any, values: NDArray[Any]) -> None:
    """Write host `values` into an array without gaps, numpy's or a GPU's, of as many values."""
    if isinstance(array, np.ndarray):
        array[...] = values.reshape(array.shape)
    else:
        array.set(np.ascontiguousarray(values.reshape(array.shape), array.dtype))
