from __future__ import annotations

import numpy as np
import pytest

from dtrain.core.solver.update_rules import UPDATE_RULES
from dtrain.core.solver.update_rules.rule import Step, l2_norm
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


def test_l2_norm_is_the_root_of_the_sum_of_squares() -> None:
    assert l2_norm(np.array([[2.0, -4.0], [4.0, 8.0]], np.float32)) == 10
    assert l2_norm(np.array(-3.0)) == 3
