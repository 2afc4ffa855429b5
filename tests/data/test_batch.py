"""Tests of data/batch.py."""

from __future__ import annotations

from dtrain.data.batch import Batch


def test_batch_has_an_array_for_each_shape() -> None:
    batch = Batch(5, [(3, 2, 1), ()])
    arrays = (batch.data, batch.labels, batch.epochs, batch.indices)
    assert [array.shape for array in arrays] == [(5, 3, 2, 1), (5,), (5,), (5,)]
    assert [array.dtype for array in arrays] == ["float32", "float32", "int64", "int64"]


def test_fit_to_the_same_shape_keeps_the_array() -> None:
    batch = Batch(2, [(3, 4, 4)])
    before = batch.data
    assert batch.fit(0, (3, 4, 4)) is before


def test_fit_to_another_shape_makes_an_array_for_it() -> None:
    batch = Batch(2, [(3, 4, 4)])
    assert batch.fit(0, (1, 9)).shape == (2, 1, 9)
    assert batch.data.shape == (2, 1, 9)
