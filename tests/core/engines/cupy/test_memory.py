"""Device memory: copies both ways on played arrays, and one memory for each GPU."""

from __future__ import annotations

import threading
import weakref

import numpy as np
import pytest

from dtrain.core.engines import create_engine
from dtrain.core.engines.cupy.devices import use_device
from dtrain.core.engines.cupy.memory import DeviceMemory, device_memory
from dtrain.core.errors import UserError
from dtrain.core.kept import Kept
from dtrain.core.memory_pool import MemoryPool
from dtrain.core.tensor import Tensor
from tests.dist.fake_cupy import make_fake_cupy
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


def test_device_memory_within_a_capture_has_no_copies_to_and_from_the_host(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cupy = play_cupy(monkeypatch)
    memory = device_memory(cupy)
    on_host, on_device = Tensor((2, 3)), Tensor((2, 3))
    on_host.write()[...] = 1
    on_device.write(memory)[...] = 2
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        with pytest.raises(
            UserError, match="must be and stay on the GPU, got 6 values that the host alone has"
        ):
            on_host.read(memory)
        with pytest.raises(UserError, match="got 6 values that are wanted on the host"):
            on_device.read()
        stream.end_capture()
    assert on_device.read().tolist() == [[2, 2, 2], [2, 2, 2]]


def test_mark_says_whether_the_current_stream_has_done_what_it_was_given() -> None:
    cupy, may_go = make_fake_cupy(1), threading.Event()
    stream = cupy.cuda.get_current_stream()
    stream.give(lambda: may_go.wait(30) or None)
    is_over = DeviceMemory(cupy).mark()
    assert not is_over()
    may_go.set()
    stream.synchronize()
    assert is_over()


def test_device_memory_of_a_gpu_is_one_for_all_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    cupy = play_cupy(monkeypatch, num_devices=2)
    first = create_engine("cupy").memory
    assert create_engine("cupy").memory is first
    use_device(1)
    second = device_memory(cupy)
    assert second is not first
    use_device(0)
    assert device_memory(cupy) is first


def test_device_memory_of_values_that_died_is_nobodys(monkeypatch: pytest.MonkeyPatch) -> None:
    cupy = play_cupy(monkeypatch)
    memory = device_memory(cupy)
    tensor = Tensor((2, 3))
    tensor.storage.borrow_from(MemoryPool())
    for number in range(2):  # a view of a shape of its own, and of the same
        tensor.write(memory)[...] = number
        tensor.read(memory)
        array = tensor.storage.copies[memory]
        held = weakref.ref(getattr(array, "_values", array))
        del array
        tensor.storage.give_back("data")
        assert held() is None


def test_device_memory_of_params_keeps_its_views(monkeypatch: pytest.MonkeyPatch) -> None:
    cupy = play_cupy(monkeypatch)
    memory = device_memory(cupy)
    tensor = Tensor((2, 3))
    tensor.move_into(memory.allocate(6, np.float32), memory)
    tensor.storage.pool = MemoryPool()  # as weights have it, for their copies in other layouts
    assert tensor.read(memory) is tensor.read(memory)


@pytest.mark.parametrize("is_pooled", [True, False])
def test_kept_on_the_device_is_nobodys_once_given_back(
    monkeypatch: pytest.MonkeyPatch, is_pooled: bool
) -> None:
    cupy = play_cupy(monkeypatch)
    memory = device_memory(cupy)
    tensor, kept = Tensor((2, 3)), Kept()
    if is_pooled:
        tensor.storage.borrow_from(MemoryPool())
    tensor.write(memory)[...] = 5
    taken = kept.take(tensor, memory)
    tensor.write(memory)[...] = 7
    assert taken.get().tolist() == [[5] * 3] * 2
    del taken
    kept.give_back()
    assert (kept.values is None) == is_pooled, "without a pool it is used again"
