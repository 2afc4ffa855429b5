"""The trust ratio of LARS and LAMB: how far a param's step is stretched to suit the size of the param."""

from __future__ import annotations

from dtrain.core.solver.update_rules.rule import Array, l2_norm


def norms_to_compare(data: Array, change: Array) -> tuple[float, float] | None:
    """Return the L2 norms of a param and of what would change it, or None where they are not to be compared.

    None is for params of one axis or none (biases and scales, whose size says nothing of their layer's) and
    where either norm is 0.
    """
    if data.ndim < 2:
        return None
    sizes = l2_norm(data), l2_norm(change)
    return sizes if all(sizes) else None
