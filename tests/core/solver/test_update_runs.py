from __future__ import annotations

import numpy as np
import pytest

from dtrain.core.blob import Blob
from dtrain.core.net.arena import Arena
from dtrain.core.net.params import Param
from dtrain.core.solver.update_runs import Multipliers, Run, find_runs

FULL, PART = 32, 17  # values that fill cache lines of 16, and that don't


def make_arena(*kinds: tuple[int, float, float]) -> Arena:
    """Return an arena in which params lie in this order: how many values, lr_mult and decay_mult of each."""
    params = [
        Param(Blob((size,)), k, 0, "", rate, decay, layer_name=str(k))
        for k, (size, rate, decay) in enumerate(kinds)
    ]
    return Arena(params[::-1], num_extra=4)


def multipliers_of(param: Param) -> Multipliers:
    return param.learning_rate_multiplier, param.decay_multiplier


def runs_of(arena: Arena, params: list[Param], piece_size: int | None = 1000) -> list[Run]:
    return find_runs(params, arena, [np.zeros_like(arena.data)], multipliers_of, piece_size)


def names(runs: list[Run]) -> list[str]:
    return ["".join(param.layer_name for param in run.params) for run in runs]


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ([(FULL, 1, 1)] * 3, ["012"]),
        ([(FULL, 1, 1), (FULL, 2, 1), (FULL, 1, 1)], ["0", "1", "2"]),  # other rates
        ([(FULL, 1, 1), (FULL, 1, 0), (FULL, 1, 0)], ["0", "12"]),  # other decays
        ([(PART, 1, 1), (FULL, 1, 1), (PART, 1, 1)], ["0", "12"]),  # zeros of nobody between
        ([(FULL, 1, 1), (FULL, 1, 1), (FULL, 0, 1)], ["01"]),  # does not learn, and is not asked for
    ],
)
def test_find_runs_joins_what_touches_and_has_the_same_multipliers(
    kinds: list[tuple[int, float, float]], expected: list[str]
) -> None:
    arena = make_arena(*kinds)
    wanted = [param for param in arena.params if param.learning_rate_multiplier]
    runs = runs_of(arena, wanted[::-1])  # in whatever order they are named
    assert names(runs) == expected
    assert [run.multipliers for run in runs] == [multipliers_of(run.params[0]) for run in runs]


def test_find_runs_does_not_join_over_a_param_that_is_not_asked_for() -> None:
    arena = make_arena(*[(FULL, 1, 1)] * 4)
    assert names(runs_of(arena, [arena.params[k] for k in (0, 2, 3)])) == ["0", "23"]


def test_find_runs_of_whole_params_gives_each_its_shape() -> None:
    params = [Param(Blob(shape), k, 0, "", 1, 1) for k, shape in enumerate([(4, 8), (), (2, 2, 4)])]
    arena = Arena(params)
    runs = runs_of(arena, params, piece_size=None)
    found = [
        [array.shape for array in (run.pieces[0][0], run.pieces[0][1], *run.pieces[0][2])] for run in runs
    ]
    assert found == [[shape] * 3 for shape in [(2, 2, 4), (), (4, 8)]]
    assert [len(run.pieces) for run in runs] == [1, 1, 1]


def test_find_runs_cuts_views_that_cover_the_params_and_nothing_else() -> None:
    arena = make_arena((FULL, 1, 1), (FULL, 1, 1), (PART, 1, 1), (PART, 2, 1))
    history = np.zeros_like(arena.data)
    runs = find_runs(arena.params, arena, [history], multipliers_of, 20)
    assert [[data.size for data, *_ in run.pieces] for run in runs] == [[20, 20, 20, 20, 1], [17]]
    assert [run.num_values for run in runs] == [81, 17]
    for run in runs:
        for data, diff, (kept,) in run.pieces:
            data += 1
            diff += 2
            kept += 3
    for param in arena.params:
        assert (param.blob.data == 1).all()
        assert (param.blob.diff == 2).all()
    assert [arena.data.sum(), arena.reduced.sum(), history.sum()] == [98, 2 * 98, 3 * 98]
