from __future__ import annotations

import math

import pytest
from google.protobuf import text_format

from dtrain.core.errors import UserError
from dtrain.core.solver.lr_policies import LR_POLICIES, learning_rate, multistep_index, progress
from dtrain.proto import caffe_pb2


def solver_of(text: str) -> caffe_pb2.SolverParameter:
    return text_format.Parse(text, caffe_pb2.SolverParameter())


STEP = "gamma: 0.5 stepsize: 10"
MULTISTEP = "gamma: 0.5 stepvalue: 5 stepvalue: 8 stepvalue: 8"
SIGMOID = "gamma: 0.5 stepsize: 10"
HALF_COSINE = (1 + math.cos(math.pi / 4)) / 2  # of the way, after a quarter of it


@pytest.mark.parametrize(
    ("policy", "fields", "rates"),
    [
        ("fixed", "", {0: 0.25, 1000: 0.25}),
        ("step", STEP, {0: 0.25, 9: 0.25, 10: 0.125, 19: 0.125, 20: 0.0625}),
        ("step", "gamma: 0 stepsize: 10", {9: 0.25, 10: 0}),
        ("exp", "gamma: 0.5", {0: 0.25, 1: 0.125, 3: 0.03125, 100_000: 0}),
        ("exp", "gamma: 0", {0: 0.25, 1: 0}),
        ("inv", "gamma: 0.5 power: 2", {0: 0.25, 2: 0.0625, 6: 0.015625}),
        ("inv", "gamma: 1.5 power: 0.5", {2: 0.125, 10: 0.0625}),
        ("inv", "gamma: 0.5 power: -1", {2: 0.5}),
        ("multistep", MULTISTEP, {0: 0.25, 4: 0.25, 5: 0.125, 7: 0.125, 8: 0.03125, 99: 0.03125}),
        ("multistep", "gamma: 0.5", {9: 0.25}),
        ("poly", "power: 2 max_iter: 10", {0: 0.25, 5: 0.0625, 9: 0.0025, 10: 0, 11: 0}),
        ("poly", "power: 0.5 max_iter: 16", {7: 0.1875, 12: 0.125}),
        ("poly", "power: 0 max_iter: 16", {7: 0.25, 16: 0.25, 17: 0.25}),
        ("poly", "power: -1 max_iter: 16", {12: 1, 16: 0}),
        ("poly", "power: 2 max_iter: 0", {0: 0}),
        # ln 3 / 0.5 = 2.197…: 1 / (1 + e^−x) at x = 0 is 1/2; at ±0.5·k by definition
        ("sigmoid", SIGMOID, {10: 0.125, 12: 0.25 / (1 + math.exp(-1)), 6: 0.25 / (1 + math.exp(2))}),
        ("sigmoid", "gamma: 1 stepsize: 5000", {0: 0, 10000: 0.25}),  # exp(5000) is no number
        # a quarter of the way down, half a cosine is at (1 + cos 45°) / 2; half of the way at 1/2
        ("cosine", "max_iter: 8", {0: 0.25, 2: 0.25 * HALF_COSINE, 4: 0.125, 8: 0, 9: 0}),
        (
            "cosine",
            "max_iter: 8 dtrain_param { min_lr: 0.0625 }",
            {0: 0.25, 4: 0.15625, 8: 0.0625, 99: 0.0625},
        ),
        ("cosine", "max_iter: 0 dtrain_param { min_lr: 0.0625 }", {0: 0.0625}),
        (
            "one_cycle",
            "max_iter: 20 dtrain_param { peak_fraction: 0.2 start_divisor: 5 end_divisor: 10 }",
            {0: 0.05, 2: 0.15, 4: 0.25, 8: 0.005 + 0.245 * HALF_COSINE, 12: 0.1275, 20: 0.005, 21: 0.005},
        ),
        (
            "one_cycle",
            "max_iter: 20",
            {0: 0.01, 3: 0.13, 6: 0.25, 20: 1e-6},
        ),  # 25, 0.3 and 10000 unless given
        ("one_cycle", "max_iter: 8 dtrain_param { peak_fraction: 0 }", {0: 0.25, 8: 1e-6}),
        ("one_cycle", "max_iter: 8 dtrain_param { peak_fraction: 1 }", {0: 0.01, 4: 0.13, 8: 1e-6}),
        ("plateau", "gamma: 0.5", {0: 0.25, 99: 0.25}),
    ],
)
def test_learning_rate_of_a_policy_follows_its_formula(
    policy: str, fields: str, rates: dict[int, float]
) -> None:
    solver = solver_of(f'base_lr: 0.25 lr_policy: "{policy}" {fields}')
    for iteration, rate in rates.items():
        assert learning_rate(solver, iteration) == pytest.approx(rate, rel=1e-6, abs=1e-12), iteration


def test_lr_policies_are_those_of_the_catalogue_and_three_more() -> None:
    of_caffe = ["exp", "fixed", "inv", "multistep", "poly", "sigmoid", "step"]
    assert sorted([*of_caffe, "cosine", "one_cycle", "plateau"]) == list(LR_POLICIES)


def test_multistep_index_is_the_number_of_stepvalues_reached() -> None:
    solver = solver_of(MULTISTEP)
    assert [multistep_index(solver, i) for i in (0, 4, 5, 7, 8, 9)] == [0, 0, 1, 1, 3, 3]


def test_progress_is_the_part_of_max_iter_that_is_done() -> None:
    solver = solver_of("max_iter: 8")
    assert [progress(solver, i) for i in (0, 2, 8, 9)] == [0, 0.25, 1, 1]
    assert progress(solver_of(""), 0) == 1


@pytest.mark.parametrize(
    ("min_lr", "rates"), [("", [0.25, 0.125, 0.0625, 0.03125]), ("min_lr: 0.1", [0.25, 0.125, 0.1, 0.1])]
)
def test_plateau_falls_with_each_reduction_but_not_below_min_lr(min_lr: str, rates: list[float]) -> None:
    solver = solver_of(f'base_lr: 0.25 lr_policy: "plateau" gamma: 0.5 dtrain_param {{ {min_lr} }}')
    assert [learning_rate(solver, 7, n) for n in range(4)] == pytest.approx(rates)


@pytest.mark.parametrize(
    ("policy", "rates"),
    [
        # from 0.125 at iteration 0 on a straight line to what the policy says at iteration 4
        ('lr_policy: "fixed"', [0.125, 0.15625, 0.1875, 0.21875, 0.25, 0.25]),
        (
            'lr_policy: "exp" gamma: 0.5',
            [0.125, 0.125 - 0.109375 / 4, 0.0703125, 0.125 - 0.328125 / 4, 2**-6, 2**-7],
        ),
        ('lr_policy: "multistep" gamma: 0.5 stepvalue: 2 stepvalue: 5', [0.125] * 5 + [0.0625]),
        ('lr_policy: "poly" power: 1 max_iter: 8', [0.125, 0.125, 0.125, 0.125, 0.125, 0.09375]),
        ('lr_policy: "cosine" max_iter: 8', [0.125] * 5),
        ('lr_policy: "step" gamma: 3 stepsize: 4', [0.125, 0.28125, 0.4375, 0.59375, 0.75, 0.75]),
        ('lr_policy: "inv" gamma: 0.25 power: 1', [0.125] * 5),
        ('lr_policy: "sigmoid" gamma: 1 stepsize: 4', [0.125] * 5),
        ('lr_policy: "plateau" gamma: 0.5', [0.125, 0.15625, 0.1875, 0.21875, 0.25, 0.25]),
        (
            'lr_policy: "one_cycle" max_iter: 8',  # at iteration 4: 2/7 of the way down from 0.25 to 1e-6
            [
                0.125 + k / 4 * (1e-6 + (0.25 - 1e-6) * (1 + math.cos(math.pi * 2 / 7)) / 2 - 0.125)
                for k in range(5)
            ],
        ),
    ],
)
def test_warmup_rises_on_a_straight_line_to_what_the_policy_says(policy: str, rates: list[float]) -> None:
    solver = solver_of(f"base_lr: 0.25 {policy} dtrain_param {{ warmup_iter: 4 warmup_start_lr: 0.125 }}")
    assert [learning_rate(solver, i) for i in range(len(rates))] == pytest.approx(rates, rel=1e-6)


@pytest.mark.parametrize("policy", list(LR_POLICIES))
def test_learning_rate_with_a_factor_is_that_of_base_lr_and_min_lr_times_it(policy: str) -> None:
    fields = 'gamma: 0.5 power: 2 stepsize: 3 stepvalue: 4 max_iter: 20 lr_policy: "%s" base_lr: %g'
    extra = "dtrain_param { min_lr: %g warmup_iter: 5 warmup_start_lr: 0.125 }"
    written = solver_of(f"{fields} {extra}" % (policy, 0.25, 0.0625))
    scaled = solver_of(f"{fields} {extra}" % (policy, 1.0, 0.25))
    for iteration in range(25):
        for num_reductions in (0, 1, 4):
            expected = learning_rate(scaled, iteration, num_reductions)
            assert learning_rate(written, iteration, num_reductions, 4.0) == pytest.approx(expected)
    assert learning_rate(written, 0, 0, 4.0) == 0.125


def test_learning_rate_beyond_all_numbers_by_its_factor_is_refused() -> None:
    with pytest.raises(UserError, match="must give a learning rate that float32 can hold"):
        learning_rate(solver_of('lr_policy: "fixed" base_lr: 1e38'), 0, 0, 10.0)


def test_warmup_table_has_every_policy() -> None:
    (mark,) = test_warmup_rises_on_a_straight_line_to_what_the_policy_says.pytestmark  # type: ignore[attr-defined]
    assert {row[0].split('"')[1] for row in mark.args[1]} == set(LR_POLICIES)


def test_warmup_of_plateau_rises_to_the_reduced_rate() -> None:
    solver = solver_of('base_lr: 0.25 lr_policy: "plateau" gamma: 0.5 dtrain_param { warmup_iter: 4 }')
    assert [learning_rate(solver, i, 1) for i in (0, 2, 4)] == [0, 0.0625, 0.125]


@pytest.mark.parametrize(
    ("fields", "iteration"),
    [
        ('"exp" gamma: 1.5', 5000),
        ('"exp" gamma: 3e38', 2),
        ('"step" gamma: 2 stepsize: 1', 2000),
        ('"inv" gamma: 3e38 power: -20', 1),
        ('"exp" gamma: inf', 1),
    ],
)
def test_learning_rate_beyond_all_numbers_is_refused(fields: str, iteration: int) -> None:
    solver = solver_of(f"base_lr: 1 lr_policy: {fields}")
    name = solver.lr_policy
    with pytest.raises(
        UserError,
        match=f'^lr_policy "{name}" must give a learning rate that float32 can hold, got .* iteration {iteration};',
    ):
        learning_rate(solver, iteration)
    assert learning_rate(solver, 0) == 1
