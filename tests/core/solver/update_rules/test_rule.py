from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from google.protobuf import text_format

from dtrain.core.solver.update_rules import UPDATE_RULES
from dtrain.core.solver.update_rules.rule import Step, l2_norm, number, sum_of_squares
from dtrain.proto import caffe_pb2


def test_update_rules_are_caffe_s_and_three_more() -> None:
    of_caffe = ["AdaDelta", "AdaGrad", "Adam", "Nesterov", "RMSProp", "SGD"]
    assert sorted([*of_caffe, "AdamW", "LAMB", "LARS"]) == list(UPDATE_RULES)


def test_update_rules_keep_the_solver_that_they_read_their_fields_from() -> None:
    solver = caffe_pb2.SolverParameter(momentum=0.5)
    for name in UPDATE_RULES:
        rule = UPDATE_RULES[name](solver)
        assert rule.solver is solver
        assert rule.num_histories >= 1


@pytest.mark.parametrize("name", list(UPDATE_RULES))
def test_apply_leaves_in_diff_what_it_took_off(name: str) -> None:
    rule = UPDATE_RULES[name](caffe_pb2.SolverParameter(momentum=0.5, delta=0.125))
    random = np.random.default_rng(0)
    data, history = random.standard_normal((3, 4)), [np.ones((3, 4)) for _ in range(rule.num_histories)]
    for iteration in range(2):
        before, diff = data.copy(), random.standard_normal((3, 4))
        rule.apply(data, diff, history, Step(0.25, iteration))
        np.testing.assert_allclose(diff, before - data, rtol=1e-12)


@pytest.mark.parametrize("name", list(UPDATE_RULES))
def test_apply_that_is_not_to_show_the_change_leaves_the_diff_and_does_the_same(name: str) -> None:
    results = []
    for shows_change in (True, False):
        rule = UPDATE_RULES[name](caffe_pb2.SolverParameter(momentum=0.5, delta=0.125))
        random = np.random.default_rng(0)
        data, diff = random.standard_normal((2, 3, 4))
        before, history = diff.copy(), [np.ones((3, 4)) for _ in range(rule.num_histories)]
        rule.apply(data, diff, history, Step(0.5, 1, 0.25, 0.5, shows_change))
        assert np.array_equal(diff, before) == (not shows_change)
        results.append([data, *history])
    for shown, hidden in zip(*results, strict=True):
        np.testing.assert_array_equal(hidden, shown)


@pytest.mark.parametrize("name", list(UPDATE_RULES))
def test_apply_takes_the_diff_times_scale_for_the_gradient(name: str) -> None:
    results = []
    for scale in (1.0, 0.25):  # a power of 2, so that nothing is rounded
        rule = UPDATE_RULES[name](caffe_pb2.SolverParameter(momentum=0.5, delta=0.125))
        random = np.random.default_rng(0)
        data, diff = random.standard_normal((2, 3, 4))
        diff /= scale
        history = [np.ones((3, 4)) for _ in range(rule.num_histories)]
        rule.apply(data, diff, history, Step(0.5, 1, 0.25, scale))
        results.append([data, diff, *history])
    for whole, scaled in zip(*results, strict=True):
        np.testing.assert_allclose(scaled, whole, rtol=1e-15)


W, G = np.array([[2.0, -4.0], [0.0, 8.0]]), np.array([[1.0, 2.0], [-4.0, 0.0]])


@pytest.mark.parametrize(
    ("fields", "step", "times", "expected"),
    [
        ("", Step(1.0, 0), 1.0, G),
        ("", Step(1.0, 0, scale=0.5), 1.0, 0.5 * G),
        ("", Step(1.0, 0, decay=0.25), 1.0, G + 0.25 * W),
        ("", Step(1.0, 0, decay=0.25, scale=0.5), 1.0, 0.5 * G + 0.25 * W),
        ("", Step(1.0, 0, decay=0.25, scale=0.5), 8.0, 8 * (0.5 * G + 0.25 * W)),
        ("", Step(1.0, 0, decay=0.25, scale=0.5), 2.0, 2 * (0.5 * G + 0.25 * W)),
        ("", Step(1.0, 0, decay=0.25, scale=0.5), 0.0, 0 * G),
        ("regularization_type: 'L1'", Step(1.0, 0, decay=0.25, scale=0.5), 1.0, 0.5 * G + 0.25 * np.sign(W)),
        ("regularization_type: 'L1'", Step(1.0, 0, decay=0.25), 4.0, 4 * (G + 0.25 * np.sign(W))),
    ],
)
def test_regularise_scales_adds_decay_and_multiplies(
    fields: str, step: Step, times: float, expected: np.ndarray
) -> None:
    rule = UPDATE_RULES["SGD"](text_format.Parse(fields, caffe_pb2.SolverParameter()))
    data, diff = W.copy(), G.copy()
    gradient = rule.regularise(data, diff, replace(step, shows_change=False), times)
    np.testing.assert_array_equal(gradient, expected)
    np.testing.assert_array_equal(diff, G)
    assert rule.regularise(data, diff, step, times) is diff
    np.testing.assert_array_equal(diff, expected)
    np.testing.assert_array_equal(data, W)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_number_multiplies_as_a_float_does_to_the_last_bit(dtype: type) -> None:
    values = np.random.default_rng(1).standard_normal(1000).astype(dtype)
    for factor in (0.1, 1 / 3, -7e-9, 0.0, 1e30):
        multiplied = values * number(factor, values)
        assert multiplied.dtype == dtype
        np.testing.assert_array_equal(multiplied, values * factor)


def test_scratch_is_one_memory_that_grows_as_needed() -> None:
    rule = UPDATE_RULES["SGD"](caffe_pb2.SolverParameter())
    small, large = np.zeros((2, 3), np.float32), np.zeros(100, np.float32)
    first = rule.scratch(small)
    assert (first.shape, first.dtype) == ((2, 3), np.float32)
    assert np.shares_memory(rule.scratch(small), first)
    grown = rule.scratch(large)
    assert grown.shape == (100,)
    assert np.shares_memory(rule.scratch(small), grown)
    assert rule.scratch(large.astype(np.float64)).dtype == np.float64
    assert not np.shares_memory(rule.scratch(small, "another purpose"), rule.scratch(small))


def test_scratch_of_another_thread_is_other_memory() -> None:
    rule = UPDATE_RULES["SGD"](caffe_pb2.SolverParameter())
    mine = rule.scratch(np.zeros(4))
    with ThreadPoolExecutor(1) as thread:
        assert not np.shares_memory(thread.submit(rule.scratch, np.zeros(4)).result(), mine)


def test_l2_norm_is_the_root_of_the_sum_of_squares() -> None:
    assert l2_norm(np.array([[2.0, -4.0], [4.0, 8.0]], np.float32)) == 10
    assert l2_norm(np.array(-3.0)) == 3


@pytest.mark.parametrize("count", [0, 1, 8192, 8193, 30_000])
def test_sum_of_squares_of_numbers_from_1_is_their_pyramid(count: int) -> None:
    assert sum_of_squares(np.arange(1.0, count + 1)) == count * (count + 1) * (2 * count + 1) // 6


def test_sum_of_squares_is_the_same_whatever_threads_the_blas_has() -> None:
    program = """
import numpy as np
from dtrain.core.solver.update_rules.rule import sum_of_squares
print(sum_of_squares(np.random.default_rng(0).standard_normal(3_000_000, np.float32)).hex())
"""
    said = set()
    for num_threads in ("1", "2", "3"):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"OPENBLAS_NUM_THREADS": num_threads, "MKL_NUM_THREADS": num_threads},
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        said.add(done.stdout)
    assert len(said) == 1
