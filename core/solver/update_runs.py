"""Runs of params: those that lie next to one another in the arena and change alike, so that they are updated as one.

    arena ──> runs ──> updater

Most params of a deep net are a few values long (biases, scales): going from one to the next takes longer than what is
done to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from dtrain.core.net.arena import Arena
from dtrain.core.net.params import Param
from dtrain.core.solver.update_rules.rule import Array

Multipliers = tuple[float, float]  # of the rate, of the decay
Piece = tuple[Array, Array, list[Array]]  # data, diff, one array of each kind of history


@dataclass(frozen=True)
class Run:
    """Params that are updated as one, all by the same multipliers.

    pieces: what is changed at a time, views of the arena and of the histories; all together are `num_values`.
    """

    params: list[Param]
    multipliers: Multipliers
    pieces: list[Piece]
    num_values: int


def find_runs(
    params: Sequence[Param],
    arena: Arena,
    histories: Sequence[Array],
    multipliers_of: Callable[[Param], Multipliers],
    piece_size: int | None,
) -> list[Run]:
    """Return the runs of `params`, some of those in `arena`, in the order in which they lie there.

    Only what touches is joined: the zeros that fill up a cache line behind a param would not stay so by every rule.

    Arguments:
        histories: one array of each kind, in which a param has the same place as in arena.data.
        multipliers_of: gives those of a param.
        piece_size: values of a piece at most; None: pieces are whole params, each in its own shape.
    """
    places = arena.place_in_data
    wanted = {id(param) for param in params}
    runs: list[Run] = []
    group: list[Param] = []
    for param, behind in zip(arena.params, [*arena.params[1:], None], strict=True):
        if id(param) not in wanted:
            continue
        group.append(param)
        if piece_size is not None and behind is not None and id(behind) in wanted:
            touches = places[id(param)].stop == places[id(behind)].start
            if touches and multipliers_of(param) == multipliers_of(behind):
                continue
        place = slice(places[id(group[0])].start, places[id(param)].stop)
        arrays = [array[place] for array in (arena.data, arena.diff, *histories)]
        pieces = list(_cut(arrays, piece_size)) if piece_size else [_shaped(arrays, param.blob.shape)]
        runs.append(Run(group, multipliers_of(param), pieces, place.stop - place.start))
        group = []
    return runs


def _cut(arrays: Sequence[Array], piece_size: int) -> Iterator[Piece]:
    for start in range(0, arrays[0].size, piece_size):
        data, diff, *histories = (array[start : start + piece_size] for array in arrays)
        yield data, diff, histories


def _shaped(arrays: Sequence[Array], shape: tuple[int, ...]) -> Piece:
    data, diff, *histories = (array.reshape(shape) for array in arrays)
    return data, diff, histories
