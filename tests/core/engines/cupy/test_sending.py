"""Numbers sent to the device: what arrives, and that nothing is sent twice."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dtrain.core.engines.cupy.sending import Sender


@pytest.mark.parametrize("dtype", ["float32", "uint64", "int32", "float64"])
@pytest.mark.parametrize("shape", [(1,), (3, 4), (16,), (9, 4)])
def test_send_of_any_shape_and_type_arrives(cupy: Any, dtype: str, shape: tuple[int, ...]) -> None:
    target = cupy.zeros(shape, dtype)
    values = (np.arange(target.size).reshape(shape) * 3 + 1).astype(dtype)
    Sender(cupy, target).send(values)
    np.testing.assert_array_equal(target.get(), values)


def test_send_keeps_every_bit(cupy: Any) -> None:
    values = np.array([np.nan, -0.0, np.inf, 1e-45], np.float32)
    target = cupy.zeros(4, np.float32)
    Sender(cupy, target).send(values)
    assert target.get().tobytes() == values.tobytes()


def test_send_leaves_what_is_beside_the_target(cupy: Any) -> None:
    whole = cupy.zeros(8, np.float32)
    Sender(cupy, whole[2:5]).send(np.ones(3, np.float32))
    assert whole.get().tolist() == [0, 0, 1, 1, 1, 0, 0, 0]


def test_send_of_the_same_again_writes_only_after_forget(cupy: Any) -> None:
    target = cupy.zeros(2, np.float32)
    sender = Sender(cupy, target)
    values = np.array([1, 2], np.float32)
    sender.send(values)
    target.fill(0)
    sender.send(values)
    assert target.get().tolist() == [0, 0]
    sender.forget()
    sender.send(values)
    assert target.get().tolist() == [1, 2]


def test_send_takes_the_values_as_they_are_at_the_call(cupy: Any) -> None:
    target = cupy.zeros(1, np.float32)
    sender = Sender(cupy, target)
    values = np.array([1], np.float32)
    for number in (5, 6):
        values[0] = number
        sender.send(values)
        assert target.get().tolist() == [number]
