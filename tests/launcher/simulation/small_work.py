"""Works of a few layers with times and sizes that can be added up by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dtrain.launcher.simulation.work import Bucket, Costs, Work


def make_small_work(
    forward_s: Sequence[float] = (1.0, 2.0, 3.0),
    backward_s: Sequence[float] = (4.0, 5.0, 6.0),
    buckets: Sequence[tuple[int, int]] = ((2, 100), (0, 300)),
    update_s: float = 0.0,
    reading_s: float = 0.0,
    **fields: Any,
) -> Work:
    """Return a work of one pass over 8 images unless `fields` say otherwise; buckets: (layer_index, num_bytes)."""
    costs = Costs(tuple(forward_s), tuple(backward_s), update_s, reading_s)
    fields = {"iter_size": 1, "images": 8, **fields}
    return Work(costs, tuple(Bucket(*bucket) for bucket in buckets), **fields)
