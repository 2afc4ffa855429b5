"""Device memory: copies both ways on played arrays, and one memory for each GPU."""

from __future__ import annotations

import numpy as np
import pytest

from dtrain.core.engines import create_engine
from dtrain.core.engines.cupy.devices import use_device
from dtrain.core.engines.cupy.memory import device_memory
from dtrain.core.tensor import Tensor
from tests.played.cupy import play_cupy


def test_device_memory_takes_values_from_the_host_and_back(monkeypatch: pytest.MonkeyPatch) -> None:
    cupy = play_cupy(monkeypatch)
    memory = device_memory(cupy)
    tensor = Tensor((2, 3))
    tensor.write()[...] = np.arange(6).reshape(2, 3)
    array = tensor.update(memory)
    assert isinstance(array, cupy.ndarray)
    array *= 2
    assert tensor.read().tolist() == [[0, 2, 4], [6, 8, 10]]


def test_device_memory_of_a_gpu_is_one_for_all_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    cupy = play_cupy(monkeypatch, num_devices=2)
    first = create_engine("cupy").memory
    assert create_engine("cupy").memory is first
    use_device(1)
    second = device_memory(cupy)
    assert second is not first
    use_device(0)
    assert device_memory(cupy) is first
