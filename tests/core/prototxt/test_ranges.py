from __future__ import annotations

import math
from typing import Any

import pytest

from dtrain.core.prototxt.ranges import RULES, Value, rule_for
from dtrain.proto import caffe_pb2

DEFAULT_MEANS_UNSET = {"RecurrentParameter.num_output"}
INF, NAN = math.inf, math.nan


@pytest.mark.parametrize(
    ("place", "good", "bad"),
    [
        ("ConvolutionParameter.kernel_size", [1, 11], [0]),
        ("ConvolutionParameter.stride", [1, 4], [0]),
        ("ConvolutionParameter.group", [1, 2], [0]),
        ("PoolingParameter.kernel_h", [1], [0]),
        ("InnerProductParameter.num_output", [1, 1000], [0]),
        ("DataParameter.batch_size", [1, 256], [0]),
        ("DataParameter.prefetch", [1, 4], [0]),
        ("DropoutParameter.dropout_ratio", [0.0, 0.5, 0.999], [-0.1, 1.0, NAN]),
        ("LRNParameter.local_size", [1, 3, 5], [0, 2, 4]),
        ("BatchNormParameter.moving_average_fraction", [0.0, 0.999, 1.0], [-0.001, 1.001, NAN]),
        ("BatchNormParameter.eps", [1e-10], [0.0, -1e-5, INF, NAN]),
        ("SolverParameter.test_iter", [1, 100], [0, -1]),
        ("SolverParameter.test_interval", [0, 500], [-1]),
        ("SolverParameter.iter_size", [1], [0]),
        ("SolverParameter.average_loss", [1], [0]),
        ("SolverParameter.max_iter", [0, 10000], [-1]),
        ("SolverParameter.stepsize", [0, 1], [-1]),
        ("SolverParameter.momentum", [0.0, 0.9], [1.0, -0.1, NAN]),
        ("SolverParameter.base_lr", [0.0, 0.01], [-0.01, INF, NAN]),
        ("SolverParameter.gamma", [0.0, 0.1], [-0.1, INF, NAN]),
        ("SolverParameter.regularization_type", ["L1", "L2"], ["l2", "L3", ""]),
        ("ParamSpec.lr_mult", [0.0, -1.0, 2.0], [INF, -INF, NAN]),
        ("TileParameter.tiles", [1], [0, -2]),
        ("AccuracyParameter.top_k", [1, 5], [0]),
        ("ExpParameter.base", [-1.0, 2.0], [0.0, -2.0, INF]),
        ("BlobShape.dim", [0, 64], [-1]),
        ("FillerParameter.sparse", [-1, 0, 15], [-2]),
    ],
)
def test_rule_holds_for_good_values_only(place: str, good: list[Value], bad: list[Value]) -> None:
    rule = RULES[place]
    assert [value for value in good if not rule.holds(value)] == []
    assert [value for value in bad if rule.holds(value)] == []


def test_rule_of_a_container_comes_first() -> None:
    reshape = rule_for("BlobShape", "dim", "ReshapeParameter.shape")
    other = rule_for("BlobShape", "dim", "InputParameter.shape")
    assert (reshape and reshape.text, other and other.text) == ("at least -1", "at least 0")


def test_rule_for_a_free_field_is_none() -> None:
    assert rule_for("SolverParameter", "random_seed") is None


@pytest.mark.parametrize("place", sorted(RULES))
def test_rule_belongs_to_a_field_whose_default_obeys_it(place: str) -> None:
    message, *inner, field = place.split(".")
    descriptor: Any = caffe_pb2.DESCRIPTOR.message_types_by_name[message]
    for step in inner:
        descriptor = descriptor.fields_by_name[step].message_type
    described = descriptor.fields_by_name[field]
    if described.has_default_value and place not in DEFAULT_MEANS_UNSET:
        assert RULES[place].holds(described.default_value)
