from __future__ import annotations

import math

import pytest
from google.protobuf import text_format

from dtrain.core.errors import UserError
from dtrain.core.solver.lr_policies import LR_POLICIES, check_policy, learning_rate, multistep_index
from dtrain.proto import caffe_pb2


def solver_of(text: str) -> caffe_pb2.SolverParameter:
    return text_format.Parse(text, caffe_pb2.SolverParameter())


STEP = "gamma: 0.5 stepsize: 10"
MULTISTEP = "gamma: 0.5 stepvalue: 5 stepvalue: 8 stepvalue: 8"
SIGMOID = "gamma: 0.5 stepsize: 10"


@pytest.mark.parametrize(
    ("policy", "fields", "rates"),
    [
        ("fixed", "", {0: 0.25, 1000: 0.25}),
        ("step", STEP, {0: 0.25, 9: 0.25, 10: 0.125, 19: 0.125, 20: 0.0625}),
        ("step", "gamma: 0 stepsize: 10", {9: 0.25, 10: 0}),
        ("exp", "gamma: 0.5", {0: 0.25, 1: 0.125, 3: 0.03125}),
        ("inv", "gamma: 0.5 power: 2", {0: 0.25, 2: 0.0625, 6: 0.015625}),
        ("inv", "gamma: 1.5 power: 0.5", {2: 0.125, 10: 0.0625}),
        ("multistep", MULTISTEP, {0: 0.25, 4: 0.25, 5: 0.125, 7: 0.125, 8: 0.03125, 99: 0.03125}),
        ("multistep", "gamma: 0.5", {9: 0.25}),
        ("poly", "power: 2 max_iter: 10", {0: 0.25, 5: 0.0625, 9: 0.0025, 10: 0, 11: 0}),
        ("poly", "power: 0.5 max_iter: 16", {7: 0.1875, 12: 0.125}),
        # ln 3 / 0.5 = 2.197…: 1 / (1 + e^−x) at x = 0 is 1/2; at ±0.5·k by definition
        ("sigmoid", SIGMOID, {10: 0.125, 12: 0.25 / (1 + math.exp(-1)), 6: 0.25 / (1 + math.exp(2))}),
        ("sigmoid", "gamma: 1 stepsize: 5000", {0: 0, 10000: 0.25}),  # exp(5000) is no number
    ],
)
def test_learning_rate_of_a_policy_follows_its_formula(
    policy: str, fields: str, rates: dict[int, float]
) -> None:
    solver = solver_of(f'base_lr: 0.25 lr_policy: "{policy}" {fields}')
    check_policy(solver)
    for iteration, rate in rates.items():
        assert learning_rate(solver, iteration) == pytest.approx(rate, rel=1e-6, abs=1e-12), iteration


def test_lr_policies_are_those_of_the_catalogue() -> None:
    assert list(LR_POLICIES) == ["exp", "fixed", "inv", "multistep", "poly", "sigmoid", "step"]


def test_multistep_index_is_the_number_of_stepvalues_reached() -> None:
    solver = solver_of(MULTISTEP)
    assert [multistep_index(solver, i) for i in (0, 4, 5, 7, 8, 9)] == [0, 0, 1, 1, 3, 3]


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        (
            'lr_policy: "stepp"',
            f'unknown lr_policy "stepp"; did you mean "step"?; known: {", ".join(LR_POLICIES)}',
        ),
        ('lr_policy: "step"', 'lr_policy "step" needs gamma and stepsize'),
        ('lr_policy: "step" gamma: 0.1', 'lr_policy "step" needs stepsize'),
        ('lr_policy: "exp"', 'lr_policy "exp" needs gamma'),
        ('lr_policy: "inv" power: 1', 'lr_policy "inv" needs gamma'),
        ('lr_policy: "multistep" stepvalue: 3', 'lr_policy "multistep" needs gamma'),
        ('lr_policy: "poly" power: 1', 'lr_policy "poly" needs max_iter'),
        ('lr_policy: "sigmoid" stepsize: 1', 'lr_policy "sigmoid" needs gamma'),
    ],
)
def test_check_policy_without_what_it_needs_is_refused(fields: str, problem: str) -> None:
    with pytest.raises(UserError) as caught:
        check_policy(solver_of(fields))
    assert caught.value.problems == (problem,)
