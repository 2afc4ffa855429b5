from __future__ import annotations

from collections.abc import Sequence

import pytest

from dtrain.core.graph.gradient_flow import LayerFlow, find_needs

DATA = LayerFlow((), ("x", "y"), loss_weights=(0, 0))
SPLIT = LayerFlow(("h",), ("p", "q"), loss_weights=(0, 0), can_force=(True,))
LOSS = LayerFlow(("p", "y"), ("l",), loss_weights=(1,), can_force=(True, False))


def learner(bottom: str, top: str, *rates: bool, propagate_down: tuple[bool, ...] = ()) -> LayerFlow:
    return LayerFlow((bottom,), (top,), propagate_down, rates or (True, True), (0,), (True,))


def plain(bottom: str, top: str, propagate_down: tuple[bool, ...] = ()) -> LayerFlow:
    return LayerFlow((bottom,), (top,), propagate_down, (), (0,), (True,))


def needs_of(layers: Sequence[LayerFlow], force: bool = False) -> list[tuple[bool, list[bool], list[bool]]]:
    return [(need.layer, need.bottoms, need.params) for need in find_needs(layers, force)]


NOTHING = (False, [], [])


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        # the first learner needs no gradient of its input, the label never
        (
            [DATA, learner("x", "h"), learner("h", "p"), LOSS],
            [NOTHING, (True, [False], [True, True]), (True, [True], [True, True]), (True, [True, False], [])],
        ),
        # nothing learns: nothing runs
        (
            [DATA, learner("x", "h", False, False), plain("h", "p"), LOSS],
            [NOTHING, (False, [False], [False, False]), (False, [False], []), (False, [False, False], [])],
        ),
        # a frozen layer passes a gradient on to what learns below, but not into its own params
        (
            [DATA, learner("x", "h"), learner("h", "p", False), LOSS],
            [NOTHING, (True, [False], [True, True]), (True, [True], [False]), (True, [True, False], [])],
        ),
        # of two params one learns
        (
            [DATA, learner("x", "p", False, True), LOSS],
            [NOTHING, (True, [False], [False, True]), (True, [True, False], [])],
        ),
        # what lies on no way to a loss stays off
        (
            [DATA, learner("x", "h"), SPLIT, learner("q", "r"), LOSS],
            [
                NOTHING,
                (True, [False], [True, True]),
                (True, [True], []),
                (False, [False], [True, True]),
                (True, [True, False], []),
            ],
        ),
        # propagate_down: false cuts: what is below doesn't run
        (
            [DATA, learner("x", "h"), learner("h", "p", propagate_down=(False,)), LOSS],
            [
                NOTHING,
                (False, [False], [True, True]),
                (True, [False], [True, True]),
                (True, [True, False], []),
            ],
        ),
        # propagate_down: true asks for the gradient of an input too
        (
            [DATA, learner("x", "p", propagate_down=(True,)), LOSS],
            [NOTHING, (True, [True], [True, True]), (True, [True, False], [])],
        ),
        # in place: one name, the same rules
        (
            [DATA, learner("x", "p"), plain("p", "p"), LOSS],
            [NOTHING, (True, [False], [True, True]), (True, [True], []), (True, [True, False], [])],
        ),
    ],
)
def test_find_needs_is_between_what_learns_and_a_loss(
    layers: list[LayerFlow], expected: list[tuple[bool, list[bool], list[bool]]]
) -> None:
    assert needs_of(layers) == expected


def test_find_needs_of_a_top_with_a_loss_weight_runs_without_a_loss_layer() -> None:
    layers = [DATA, LayerFlow(("x",), ("p",), (), (True,), (0.5,), (True,))]
    assert needs_of(layers) == [NOTHING, (True, [False], [True])]


def test_find_needs_forced_runs_everything_but_refused_bottoms() -> None:
    layers = [DATA, learner("x", "h", False), plain("h", "p"), LOSS]
    assert needs_of(layers, force=True) == [
        (True, [], []),
        (True, [True], [True]),
        (True, [True], []),
        (True, [True, False], []),
    ]
