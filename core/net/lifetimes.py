"""When the values of blobs die: after which layer's forward or backward nobody reads them any more.

    net (bottoms, tops, what backward reads) ──> lifetimes ──> memory sharing

A pure function of the net. One pass is a row of steps: forward of each layer, then backward of each from the last
one, before which some layers may run forward again (segments.py). A value dies after the last step in which it is
read or written; one that is computed again has died before that too.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

Again = Mapping[
    int, Sequence[int]
]  # layer → those that run forward again before its backward, in their order


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
    """The values that die after the forward, after the second forward and after the backward of each layer."""

    after_forward: tuple[tuple[Value, ...], ...]
    after_again: tuple[tuple[Value, ...], ...]
    after_backward: tuple[tuple[Value, ...], ...]

    @property
    def values(self) -> list[Value]:
        """All values that die, each once."""
        steps = (*self.after_forward, *self.after_again, *self.after_backward)
        return list(dict.fromkeys(value for step in steps for value in step))


class _Pass(Enum):
    FORWARD, AGAIN, BACKWARD = range(3)


class _Step(NamedTuple):
    """One layer's part in one pass: what it reads or writes, and which of these it writes."""

    which: _Pass
    layer: int
    used: list[Value]
    written: list[Value]


def find_lifetimes(
    layers: Sequence[LayerUse],
    kept: Collection[str] = (),
    shared: Iterable[Collection[Value]] = (),
    trains: bool = True,
    again: Again | None = None,
) -> Lifetimes:
    """Return what dies when.

    kept: blobs whose values somebody may want at any time, or that are not written in each pass. shared: values that
    are, or may be, in one memory: they die together, and not at all if one is kept. trains: whether backward follows
    forward. again: what runs forward again; between the two times nobody may read what these layers write. A diff
    that no backward writes is not among those that die: it is 0 for ever.
    """
    steps = _find_steps(layers, again or {}, trains)
    uses: dict[Value, list[int]] = {}
    written: set[Value] = set()
    reborn: dict[Value, int] = {}  # the step in which a value is computed again
    for k, step in enumerate(steps):
        for value in step.used:
            uses.setdefault(value, []).append(k)
        written.update(step.written)
        if step.which is _Pass.AGAIN:
            for value in step.written:
                reborn.setdefault(value, k)
    dying: dict[_Pass, list[list[Value]]] = {which: [[] for _ in layers] for which in _Pass}
    groups = _merge(uses, shared)
    for value, own in uses.items():
        group = groups[value]
        if any(member.blob in kept for member in group) or group.isdisjoint(written):
            continue
        all_uses = sorted(k for member in group for k in uses.get(member, ()))
        birth = min((reborn[member] for member in group if member in reborn), default=0)
        for begin, end in ((0, birth), (birth, len(steps))):
            life = [k for k in all_uses if begin <= k < end]
            if life and any(begin <= k < end for k in own):
                last = steps[life[-1]]
                dying[last.which][last.layer].append(value)
    return Lifetimes(*(tuple(map(tuple, dying[which])) for which in _Pass))


def most_alive_bytes(
    layers: Sequence[LayerUse], lifetimes: Lifetimes, again: Again, sizes: Mapping[Value, tuple[int, int]]
) -> int:
    """Return the most bytes at once in a pass of training, of values that die.

    sizes: for each value the number of its memory, which may be that of others, and the memory's bytes.
    """
    dying = dict(
        zip(_Pass, (lifetimes.after_forward, lifetimes.after_again, lifetimes.after_backward), strict=True)
    )
    mortal = set(lifetimes.values)
    alive: set[int] = set()
    total = most = 0
    for step in _find_steps(layers, again, trains=True):
        for memory, size in (sizes[value] for value in step.used if value in mortal):
            total += size if memory not in alive else 0
            alive.add(memory)
        most = max(most, total)
        for memory, size in (sizes[value] for value in dying[step.which][step.layer]):
            total -= size if memory in alive else 0
            alive.discard(memory)
    return most


def _merge(values: Iterable[Value], shared: Iterable[Collection[Value]]) -> dict[Value, set[Value]]:
    """Return for each value those that are in one memory with it."""
    groups = {value: {value} for value in values}
    for together in shared:
        merged = set().union(*(groups.get(value, {value}) for value in together))
        groups.update(dict.fromkeys(merged, merged))
    return groups


def _find_steps(layers: Sequence[LayerUse], again: Again, trains: bool) -> list[_Step]:
    """Return what is used when in one pass."""
    steps = [_forward(_Pass.FORWARD, i, layer) for i, layer in enumerate(layers)]
    for i, layer in reversed(list(enumerate(layers))) if trains else ():
        steps += [_forward(_Pass.AGAIN, j, layers[j]) for j in again.get(i, ())]
        if layer.runs_backward:
            given = [
                Value(name, True) for name, gives in zip(layer.bottoms, layer.gives, strict=True) if gives
            ]
            used = [*given, *(Value(name, True) for name in layer.tops)]
            used += map(Value, layer.bottoms) if layer.reads_bottoms else ()
            used += map(Value, layer.tops) if layer.reads_tops else ()
            steps.append(_Step(_Pass.BACKWARD, i, used, given))
    return steps


def _forward(which: _Pass, i: int, layer: LayerUse) -> _Step:
    tops = list(map(Value, layer.tops))
    return _Step(which, i, [*map(Value, layer.bottoms), *tops], tops)
