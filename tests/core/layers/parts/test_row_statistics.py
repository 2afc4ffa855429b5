from __future__ import annotations

import numpy as np

from dtrain.core.layers.parts.row_statistics import RowNormalisation, centred, row_means

ROWS = np.array([[1.0, 3.0, 8.0], [2.0, 2.0, 2.0]])


def test_row_means_are_a_column_and_0_without_values() -> None:
    np.testing.assert_array_equal(row_means(ROWS), [[4], [2]])
    np.testing.assert_array_equal(row_means(np.zeros((2, 0))), [[0], [0]])
    assert row_means(np.zeros((0, 3))).shape == (0, 1)


def test_centred_rows_have_mean_0() -> None:
    np.testing.assert_array_equal(centred(ROWS), [[-3, -1, 4], [0, 0, 0]])


def test_row_normalisation_divides_by_the_deviation_of_the_biased_variance() -> None:
    rows = RowNormalisation(lambda variance: np.sqrt(variance + 1))
    deviations = np.sqrt([[26 / 3 + 1], [1]])
    np.testing.assert_allclose(rows.forward(ROWS), [[-3, -1, 4], [0, 0, 0]] / deviations)


def test_row_normalisation_backward_leaves_out_what_mean_and_deviation_take_away() -> None:
    rows = RowNormalisation(np.sqrt)
    normalised = rows.forward(np.array([[-1.0, 0.0, 1.0]])).copy()  # ±sqrt(1.5)
    np.testing.assert_allclose(rows.backward(np.full((1, 3), 5.0)), np.zeros((1, 3)), atol=1e-15)
    np.testing.assert_allclose(rows.backward(normalised), np.zeros((1, 3)), atol=1e-15)
    # (1, −2, 1) is at right angles to both, so only the division by the deviation sqrt(2/3) is left
    np.testing.assert_allclose(
        rows.backward(np.array([[1.0, -2.0, 1.0]])), np.array([[1.0, -2.0, 1.0]]) * np.sqrt(1.5)
    )
