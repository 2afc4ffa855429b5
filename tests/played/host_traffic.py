"""What an iteration that is captured into a CUDA graph may not do, refused on played devices: traffic with the host.

A graph has kernels, copies within the device, and nothing of what Python did between them. So nothing may wait for
the device, read a value of it, copy from or to memory of the host, or have a result whose size depends on values; and
no kernel may be launched for the first time, when it is compiled and loaded. And cupy's own products of matrices are
refused, as cupy does.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# Functions, and methods of arrays, in which cupy waits: for the size of what they find, for an error, or in a sort.
WAITING = frozenset(
    re.findall(
        r"\w+",
        """argpartition argsort argwhere bincount choose compress delete extract flatnonzero isin item lexsort msort
        nonzero partition put putmask sort tofile tolist trim_zeros unique""",
    )
)

# Functions, and a method of arrays, that cupy has cuBLAS carry out, and refuses where a stream is captured.
PRODUCTS = frozenset(("dot", "einsum", "inner", "matmul", "outer", "tensordot", "vdot"))

# Functions that take any number of arrays: for more than so many small ones cupy copies a table to the device.
JOINING = frozenset(("concatenate", "stack", "vstack", "hstack", "dstack", "column_stack"))
MOST_JOINED = 8

_here = threading.local()


class HostTraffic(RuntimeError):
    """What was refused, in words."""


@contextmanager
def forbid_host() -> Iterator[None]:
    """Let played devices refuse, in this thread, what a captured iteration may not do: HostTraffic says what."""
    before = is_forbidden()
    _here.is_forbidden = True
    try:
        yield
    finally:
        _here.is_forbidden = before


def is_forbidden() -> bool:
    """Return whether this thread is in forbid_host."""
    return getattr(_here, "is_forbidden", False)


def refuse_host(what: str) -> None:
    """Raise HostTraffic if this thread is in forbid_host; what played devices say of themselves."""
    if is_forbidden():
        raise HostTraffic(f"a captured iteration must stay on the device, got {what}")


def refuse_product() -> None:
    """Raise what cupy does for a product of matrices if this thread is in forbid_host."""
    if is_forbidden():
        raise NotImplementedError("calling cuBLAS API during stream capture is currently unsupported")
