"""The base of Exp and Log as prototxt spells it, where −1 stands for e.

Follows caffe's exp_layer.cpp and log_layer.cpp.
"""

from __future__ import annotations

import math

from dtrain.core.errors import UserError

E = -1.0


def log_of_base(base: float, what: str) -> float:
    """Return the natural logarithm of `base`, which is 1 for −1. Raises UserError unless 0 < base < inf or −1."""
    if base == E:
        return 1.0
    if not 0 < base < math.inf:
        raise UserError(f"{what} must be greater than 0, or -1 for e, got {base:g}")
    return math.log(base)
