"""The layer interface: arity, params and their random numbers, axes, labels."""

from __future__ import annotations

import numpy as np
import pytest

from dtrain.core.blob import Blob
from dtrain.core.errors import UserError
from dtrain.core.layers.layer import Arity
from dtrain.proto import caffe_pb2
from tests.core.layers.layer_harness import TEST, TRAIN, make_layer, make_rig

STOCHASTIC = 'type: "Pooling" pooling_param { pool: STOCHASTIC kernel_size: 2 }'
ROI = 'type: "ROIPooling" roi_pooling_param { pooled_h: 1 pooled_w: 1 }'
GAUSSIAN = caffe_pb2.FillerParameter(type="gaussian")


def blob_of(values: list[float]) -> Blob:
    blob = Blob((len(values),))
    blob.data[...] = values
    return blob


@pytest.mark.parametrize(
    ("arity", "words"), [(Arity(1, 1), "1"), (Arity(1, 2), "1 to 2"), (Arity(2, None), "2 or more")]
)
def test_arity_describes_itself(arity: Arity, words: str) -> None:
    assert arity.describe() == words


@pytest.mark.parametrize(
    ("text", "shapes", "phase", "why"),
    [
        ('type: "ReLU"', [(2, 3)], TRAIN, ""),
        ('type: "Filter"', [(2, 3), (2,)], TRAIN, "takes a shape that depends on values"),
        (
            'type: "HDF5Output" hdf5_output_param { file_name: "x.h5" }',
            [(2, 3), (2,)],
            TRAIN,
            "writes a file",
        ),
        ('type: "ArgMax" argmax_param { top_k: 2 }', [(2, 3)], TRAIN, "sorts values, in which cupy waits"),
        ('type: "ArgMax"', [(2, 3)], TRAIN, ""),
        (STOCHASTIC, [(1, 1, 4, 4)], TRAIN, "draws random numbers on the host"),
        (STOCHASTIC, [(1, 1, 4, 4)], TEST, ""),
        (ROI, [(1, 1, 4, 4), (2, 5)], TRAIN, "looks at regions on the host"),
    ],
)
def test_needs_host_says_why_a_layer_can_not_be_captured(
    text: str, shapes: list[tuple[int, ...]], phase: int, why: str
) -> None:
    rig = make_rig(text, [np.zeros(shape) for shape in shapes], num_tops="HDF5" not in text, phase=phase)
    assert rig.layer.needs_host == why


def test_add_param_of_two_params_draws_different_numbers() -> None:
    layer = make_layer('type: "ReLU"', 1)
    first, second = layer.add_param((50,), GAUSSIAN), layer.add_param((50,), GAUSSIAN)
    assert list(layer.blobs) == [first, second]
    assert not np.array_equal(first.data, second.data)


def test_add_param_on_another_rank_draws_the_same_numbers() -> None:
    values = [make_layer('type: "ReLU"', 1, rank=rank).add_param((50,), GAUSSIAN).data for rank in (0, 1)]
    np.testing.assert_array_equal(*values)


def test_wants_param_is_true_until_said_otherwise() -> None:
    layer = make_layer('type: "ReLU"', 1)
    assert layer.wants_param(0)
    layer.param_propagate_down = [False, True]
    assert [layer.wants_param(i) for i in range(2)] == [False, True]


@pytest.mark.parametrize(("axis", "expected"), [(0, 0), (2, 2), (-1, 2), (-3, 0)])
def test_canonical_axis_counts_from_the_front(axis: int, expected: int) -> None:
    assert make_layer('type: "ReLU"', 1).canonical_axis(axis, 3, "axis") == expected


@pytest.mark.parametrize("axis", [3, -4])
def test_canonical_axis_that_is_not_there_is_named(axis: int) -> None:
    with pytest.raises(UserError) as caught:
        make_layer('type: "ReLU"', 1).canonical_axis(axis, 3, "axis")
    assert str(caught.value) == f"axis must be -3 to 2 for 3 axes, got {axis}"
