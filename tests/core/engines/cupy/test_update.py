"""The kernels of updates against the rules in numpy, to the last bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format
from numpy.typing import NDArray

from dtrain.core.engines.cupy.gradient_control import GradientControl
from dtrain.core.engines.cupy.update import FUSED, ArenaUpdate, can_fuse
from dtrain.core.solver.update_rules import UPDATE_RULES
from dtrain.core.solver.update_rules.rule import Step, UpdateRule
from dtrain.proto import caffe_pb2

Array = NDArray[np.float32]

# params of an arena: where each is, what it is multiplied by; the last one does not learn
PLACES = [slice(0, 5), slice(16, 48), slice(48, 81), slice(96, 97), slice(112, 144)]
MULTIPLIERS = [(1.0, 1.0), (2.0, 0.0), (1.0, 1.0), (0.3, 2.5)]
SIZE = 144
RATE, DECAY, SCALE = 0.037, 0.0013, 0.11

FIELDS = {
    "SGD": "momentum: 0.9",
    "Nesterov": "momentum: 0.9",
    "AdaGrad": "delta: 1e-6",
    "RMSProp": "rms_decay: 0.95 delta: 1e-6",
    "AdaDelta": "momentum: 0.95 delta: 1e-6",
    "Adam": "momentum: 0.9 momentum2: 0.98 delta: 1e-8",
    "AdamW": "momentum: 0.9 momentum2: 0.98 delta: 1e-8",
}


def make_rule(name: str, regularization: str = "L2") -> UpdateRule:
    fields = f"type: '{name}' regularization_type: '{regularization}' {FIELDS.get(name, '')}"
    return UPDATE_RULES[name](text_format.Parse(fields, caffe_pb2.SolverParameter()))


def make_values(rule: UpdateRule) -> tuple[Array, Array, list[Array]]:
    """Return data (a zero among them), diffs and histories, none negative where a rule takes a root."""
    random = np.random.default_rng(3)
    data, diff, *histories = random.standard_normal((2 + rule.num_histories, SIZE)).astype(np.float32)
    data[20] = 0
    if rule.solver.type not in ("SGD", "Nesterov"):
        histories = [np.abs(each) for each in histories]
    return data, diff, histories


def update_on_the_host(
    rule: UpdateRule, arrays: tuple[Array, Array, list[Array]], iteration: int, scale: float = SCALE
) -> None:
    """Let the rule itself change each param that learns."""
    data, diff, histories = arrays
    for place, (of_rate, of_decay) in zip(PLACES, MULTIPLIERS, strict=False):
        step = Step(RATE * of_rate, iteration, DECAY * of_decay, scale)
        rule.apply(data[place], diff[place], [each[place] for each in histories], step)


def make_update(cupy: Any, rule: UpdateRule) -> ArenaUpdate:
    return ArenaUpdate(cupy, rule, SIZE, PLACES[: len(MULTIPLIERS)], MULTIPLIERS)


def expect_same(cupy_arrays: list[Any], arrays: tuple[Array, Array, list[Array]], atol: float = 0) -> None:
    """Assert that params are the same, and the diffs, which show the change."""
    data, diff, histories = arrays
    for actual, expected in zip(cupy_arrays, (data, diff, *histories), strict=True):
        for place in PLACES:
            np.testing.assert_allclose(actual.get()[place], expected[place], rtol=0, atol=atol)


@pytest.mark.parametrize(
    ("name", "regularization"),
    [(name, kind) for name in FIELDS for kind in ("L2", "L1") if (name, kind) != ("AdamW", "L1")],
)
def test_run_of_each_rule_gives_its_bits(cupy: Any, name: str, regularization: str) -> None:
    rule = make_rule(name, regularization)
    expected = make_values(rule)
    data, diff, histories = expected
    data_there, diff_there, *histories_there = map(cupy.asarray, (data, diff, *histories))
    update = make_update(cupy, rule)
    gradients = np.random.default_rng(4).standard_normal((3, SIZE)).astype(np.float32)
    for iteration, gradient in enumerate(gradients):
        diff[...] = gradient
        diff_there.set(gradient)
        update_on_the_host(rule, expected, iteration)
        update.begin(Step(RATE, iteration, DECAY, SCALE))
        update.run(data_there, diff_there, histories_there)
    expect_same([data_there, diff_there, *histories_there], expected)


def test_run_of_every_rule_that_has_a_kernel_is_tested() -> None:
    assert FUSED.keys() == FIELDS.keys()


@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_run_without_showing_the_change_leaves_the_diff(cupy: Any, name: str) -> None:
    rule = make_rule(name)
    expected = make_values(rule)
    data, diff, histories = expected
    before = diff.copy()
    there = [cupy.asarray(each) for each in (data, diff, *histories)]
    update = make_update(cupy, rule)
    update.begin(Step(RATE, 0, DECAY, SCALE))
    update.run(there[0], there[1], there[2:], shows_change=False)
    update_on_the_host(rule, expected, 0)
    diff[...] = before
    expect_same(there, expected)


def test_run_of_parts_changes_each_alone(cupy: Any) -> None:
    rule = make_rule("SGD")
    expected = make_values(rule)
    there = [cupy.asarray(each) for each in (expected[0], expected[1], *expected[2])]
    before = there[0].get()
    update = make_update(cupy, rule)
    update.begin(Step(RATE, 0, DECAY, SCALE))
    update.run(there[0], there[1], there[2:], slice(48, 97))
    assert (there[0].get()[:48] == before[:48]).all()
    update.run(there[0], there[1], there[2:], slice(0, 48))
    update_on_the_host(rule, expected, 0)
    expect_same(there, expected)


def test_run_with_a_multiplier_scales_the_gradient_alone(cupy: Any) -> None:
    rule = make_rule("SGD")
    expected = make_values(rule)
    there = [cupy.asarray(each) for each in (expected[0], expected[1], *expected[2])]
    update = make_update(cupy, rule)
    update.control = cupy.asarray(np.array([0.7, 0], np.float32))
    update.begin(Step(RATE, 0, DECAY, SCALE))
    update.run(there[0], there[1], there[2:])
    update_on_the_host(rule, expected, 0, 0.7 * SCALE)
    expect_same(there, expected, 1e-7)  # the host multiplies the factors in float64


@pytest.mark.parametrize("name", FIELDS)
def test_run_after_a_gradient_control_is_clipped_as_on_the_host(cupy: Any, name: str) -> None:
    rule, world_size, limit = make_rule(name), 4, 0.5
    expected = make_values(rule)
    data, diff, histories = expected
    there = [cupy.asarray(each) for each in (data, diff, *histories)]
    control = GradientControl(cupy, limit)
    control.run(there[1], 1 / world_size)
    update = make_update(cupy, rule)
    update.control = control.control
    update.begin(Step(RATE, 0, DECAY, 1 / world_size))
    update.run(there[0], there[1], there[2:])
    norm = float(np.linalg.norm(diff.astype(np.float64))) / world_size
    assert norm > limit
    update_on_the_host(rule, expected, 0, 1 / world_size * limit / norm)
    expect_same(there, expected, 1e-6)


def test_run_that_is_left_out_changes_nothing(cupy: Any) -> None:
    rule = make_rule("Adam")
    data, diff, histories = make_values(rule)
    diff[0] = np.nan
    there = [cupy.asarray(each) for each in (data, diff, *histories)]
    update = make_update(cupy, rule)
    update.control = cupy.asarray(np.array([1, 1], np.float32))
    update.begin(Step(RATE, 0, DECAY, SCALE))
    update.run(there[0], there[1], there[2:])
    expect_same(there, (data, diff, histories))


def test_factors_of_have_a_row_for_each_pair_of_multipliers(cupy: Any) -> None:
    update = make_update(cupy, make_rule("SGD"))
    expected = {
        (of_rate * RATE * SCALE, of_rate * RATE * of_decay * DECAY) for of_rate, of_decay in MULTIPLIERS
    }
    rows = update.factors_of(Step(RATE, 0, DECAY, SCALE))
    assert len(rows) == 3
    np.testing.assert_allclose(rows[:, :2], sorted(expected), rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "num_different", "expected"),
    [("SGD", 2, True), ("AdamW", 255, True), ("SGD", 256, False), ("LARS", 2, False), ("LAMB", 2, False)],
)
def test_can_fuse_knows_elementwise_rules_and_a_byte_of_groups(
    name: str, num_different: int, expected: bool
) -> None:
    multipliers = [(float(k), 1.0) for k in range(num_different)] * 2
    assert can_fuse(make_rule(name), multipliers) is expected
