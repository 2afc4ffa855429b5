"""When the values of blobs die: after which layer's forward or backward nobody reads them any more.

    net (bottoms, tops, what backward reads) ──> lifetimes ──> memory sharing

A pure function of the net. One pass is 2·n steps of n layers: forward of layer i is step i, its backward step
2·n − 1 − i. A value dies after the last step in which it is read or written.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Value(NamedTuple):
    """The data or the diff of a blob."""

    blob: str
    is_diff: bool = False

    def __str__(self) -> str:
        return f'{"diff" if self.is_diff else "data"} of blob "{self.blob}"'


@dataclass(frozen=True)
class LayerUse:
    """What one layer does with its blobs.

    gives: which bottoms get a diff, where backward runs. reads_bottoms, reads_tops: whether backward looks at the
    data of bottoms and tops.
    """

    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    runs_backward: bool = False
    gives: tuple[bool, ...] = ()
    reads_bottoms: bool = True
    reads_tops: bool = True


@dataclass(frozen=True)
class Lifetimes:
    """The values that die after the forward and after the backward of each layer."""

    after_forward: tuple[tuple[Value, ...], ...]
    after_backward: tuple[tuple[Value, ...], ...]

    @property
    def values(self) -> list[Value]:
        """All values that die."""
        return [value for step in (*self.after_forward, *self.after_backward) for value in step]


def find_lifetimes(
    layers: Sequence[LayerUse],
    kept: Collection[str] = (),
    shared: Iterable[Collection[Value]] = (),
    trains: bool = True,
) -> Lifetimes:
    """Return what dies when.

    kept: blobs whose values somebody may want at any time, or that are not written in each pass. shared: values that
    are, or may be, in one memory: they die together, and not at all if one is kept. trains: whether backward follows
    forward. A diff that no backward writes is not among those that die: it is 0 for ever.
    """
    last, written = _find_uses(layers, trains)
    groups = {value: {value} for value in last}
    for together in shared:
        merged = set().union(*(groups.get(value, {value}) for value in together))
        groups.update(dict.fromkeys(merged, merged))
    num_layers = len(layers)
    steps: list[list[Value]] = [[] for _ in range(2 * num_layers)]
    for value in last:
        group = groups[value]
        if all(member.blob not in kept for member in group) and not group.isdisjoint(written):
            steps[max(last[member] for member in group if member in last)].append(value)
    tuples = [tuple(step) for step in steps]
    return Lifetimes(tuple(tuples[:num_layers]), tuple(reversed(tuples[num_layers:])))


def _find_uses(layers: Sequence[LayerUse], trains: bool) -> tuple[dict[Value, int], set[Value]]:
    """Return the last step in which each value is used, and which values are written at all."""
    last: dict[Value, int] = {}
    written: set[Value] = set()
    for i, layer in enumerate(layers):
        last.update(dict.fromkeys(map(Value, (*layer.bottoms, *layer.tops)), i))
        written.update(map(Value, layer.tops))
    for i, layer in reversed(list(enumerate(layers))) if trains else ():
        if not layer.runs_backward:
            continue
        given = [Value(name, True) for name, gives in zip(layer.bottoms, layer.gives, strict=True) if gives]
        written.update(given)
        used = [*given, *(Value(name, True) for name in layer.tops)]
        used += map(Value, layer.bottoms) if layer.reads_bottoms else ()
        used += map(Value, layer.tops) if layer.reads_tops else ()
        last.update(dict.fromkeys(used, 2 * len(layers) - 1 - i))
    return last, written
