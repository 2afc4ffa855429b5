"""Tests of data/errors.py."""

from __future__ import annotations

from dtrain.data.errors import DataError


def test_data_error_with_a_problem_keeps_it_whole() -> None:
    error = DataError('db: record "1": data must hold 4 values, got 3')
    assert error.problem == str(error) == 'db: record "1": data must hold 4 values, got 3'
