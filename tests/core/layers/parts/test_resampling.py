"""Planes resized: tables of taps, and blocks of any size. Values are in test_resampling_layers.py."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from dtrain.core.layers.parts import resampling
from dtrain.core.layers.parts.resampling import Repetition, Resizing, Table, bilinear_table, nearest_table
from dtrain.proto import caffe_pb2

BILINEAR = caffe_pb2.DtrainLayerParameter.BILINEAR


def matrix(table: Table, num_inputs: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Return the table as a matrix (outputs, inputs)."""
    dense = np.zeros((table.num_outputs, num_inputs))
    for indices, weights in zip(table.indices, table.weights, strict=True):
        dense[np.arange(table.num_outputs), indices] += weights
    return dense


def test_bilinear_table_from_three_to_five_takes_halves() -> None:
    expected = [[1, 0, 0], [0.5, 0.5, 0], [0, 1, 0], [0, 0.5, 0.5], [0, 0, 1]]
    np.testing.assert_array_equal(matrix(bilinear_table(3, 5), 3), expected)


def test_bilinear_table_to_one_output_takes_the_first_input() -> None:
    np.testing.assert_array_equal(matrix(bilinear_table(4, 1), 4), [[1, 0, 0, 0]])


@pytest.mark.parametrize(("num_inputs", "num_outputs"), [(2, 1000), (60, 473), (473, 60), (7, 7)])
def test_bilinear_table_stays_within_the_inputs_and_its_weights_sum_to_one(
    num_inputs: int, num_outputs: int
) -> None:
    table = bilinear_table(num_inputs, num_outputs)
    assert 0 <= table.indices.min() <= table.indices.max() < num_inputs
    assert np.all(table.weights >= 0)
    np.testing.assert_allclose(table.weights.sum(axis=0), 1, rtol=1e-6)


def test_nearest_table_rounds_down() -> None:
    assert nearest_table(3, 5).indices.tolist() == [[0, 0, 1, 1, 2]]
    assert nearest_table(5, 3).indices.tolist() == [[0, 1, 3]]


@pytest.mark.parametrize(("num_inputs", "num_outputs"), [(3, 8), (8, 3), (5, 5), (1, 4), (4, 1)])
@pytest.mark.parametrize("make", [bilinear_table, nearest_table])
def test_adjoint_is_the_transpose(
    make: Callable[[int, int], Table], num_inputs: int, num_outputs: int
) -> None:
    table = make(num_inputs, num_outputs)
    adjoint = matrix(table.adjoint(num_inputs), num_outputs)
    np.testing.assert_allclose(adjoint, matrix(table, num_inputs).T, rtol=1e-6)


@pytest.mark.parametrize("block_values", [1, 50, 1 << 16])
@pytest.mark.parametrize("outputs", [(7, 3), (2, 9)])
def test_resizing_in_blocks_of_any_size_is_a_product_with_both_matrices(
    monkeypatch: pytest.MonkeyPatch, block_values: int, outputs: tuple[int, int]
) -> None:
    monkeypatch.setattr(resampling, "BLOCK_VALUES", block_values)
    random, sizes = np.random.default_rng(1), (4, 5)
    x, dy = random.standard_normal((3, 2, *sizes)), random.standard_normal((3, 2, *outputs))
    rows, columns = (matrix(bilinear_table(*pair), pair[0]) for pair in zip(sizes, outputs, strict=True))
    resizing = Resizing(np, BILINEAR, sizes, outputs)
    y, dx = np.empty_like(dy), np.empty_like(x)
    resizing.forward(x, y)
    resizing.backward(dy, dx)
    np.testing.assert_allclose(y, rows @ x @ columns.T, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(dx, rows.T @ dy @ columns, rtol=1e-12, atol=1e-12)


def test_repetition_sums_each_block_of_gradients() -> None:
    dy, dx = np.arange(24.0).reshape(1, 4, 6), np.empty((1, 2, 2))
    Repetition(np, (2, 3)).backward(dy, dx)
    expected = [[dy[0, 2 * i : 2 * i + 2, 3 * j : 3 * j + 3].sum() for j in range(2)] for i in range(2)]
    np.testing.assert_array_equal(dx[0], expected)
