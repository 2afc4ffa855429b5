from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
from numpy.typing import DTypeLike, NDArray

from dtrain.core.blob import Blob
from dtrain.core.engines import create_engine
from dtrain.core.engines.engine import Engine, NotOffered
from dtrain.core.engines.operations import ActivationSpec, InnerProductSpec, SoftmaxSpec, Wanted
from dtrain.core.engines.reference.activation import Activation
from dtrain.core.engines.reference.engine import ReferenceEngine
from dtrain.core.tensor import HOST, Memory


class DeviceMemory(Memory):
    """Arrays that only copies reach, as on a GPU; the copies are counted."""

    name = "device"

    def __init__(self) -> None:
        self.num_in = self.num_out = 0

    def allocate(self, count: int, dtype: DTypeLike) -> NDArray[Any]:
        return np.zeros(count, dtype)

    def view(self, storage: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        return storage[: int(np.prod(shape))].reshape(shape)

    def from_host(self, host: NDArray[Any], storage: NDArray[Any]) -> None:
        self.num_in += 1
        storage[...] = host

    def to_host(self, storage: NDArray[Any], host: NDArray[Any]) -> None:
        self.num_out += 1
        host[...] = storage


class DeviceEngine(ReferenceEngine):
    """The reference's arithmetic on that memory."""

    name = "device"

    def __init__(self) -> None:
        super().__init__()
        self.memory: DeviceMemory = DeviceMemory()


class PartialEngine(DeviceEngine):
    """An engine that has activations only."""

    name = "partial"
    operations = {ActivationSpec: Activation}

    def __init__(self) -> None:
        super().__init__()
        self.fallback = create_engine("reference")


def filled(*shape: int, start: float = 0.0) -> Blob:
    blob = Blob(shape)
    blob.write_data()[...] = np.arange(start, start + blob.count).reshape(shape) / 4
    return blob


def run_two_layers(first_engine: Engine, second_engine: Engine) -> list[Any]:
    """Run inner product and tanh in place, each on its engine; return the results, read on the host."""
    x, weight, bias, y = filled(2, 3), filled(4, 3, start=-5), filled(4), Blob((2, 4))
    product = first_engine.create(InnerProductSpec(2, 3, 4))
    activation = second_engine.create(ActivationSpec((2, 4), "tanh"))
    product.forward(x, weight, bias, y)
    activation.forward(y, y)
    y.write_diff()[...] = 1
    activation.backward(y, y)
    product.backward(x, weight, bias, y, Wanted())
    arrays = y.read_data(), x.read_diff(), weight.read_diff(), bias.read_diff()
    return [array.tolist() for array in arrays]


def test_engine_on_memory_of_its_own_gives_the_same_results() -> None:
    host, device = create_engine("reference"), DeviceEngine()
    expected = run_two_layers(host, host)
    for engines in [(device, device), (host, device), (device, host)]:
        assert run_two_layers(*engines) == expected


def test_engine_on_memory_of_its_own_copies_only_what_crosses() -> None:
    engine = DeviceEngine()
    run_two_layers(engine, engine)
    # in: the data of x, weight and bias, and y.diff, all set on the host; out: the four results
    assert (engine.memory.num_in, engine.memory.num_out) == (4, 4)


def test_create_of_what_an_engine_lacks_asks_the_fallback_and_says_so_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine = PartialEngine()
    with caplog.at_level(logging.INFO):
        engine.create(ActivationSpec((1,), "relu"))
        for _ in range(2):
            assert engine.create(SoftmaxSpec((1, 2), 1)).memory is HOST
    assert caplog.messages == ["engine partial has no Softmax; engine reference runs it"]


def test_create_of_what_an_engine_does_not_offer_asks_the_fallback_and_says_what(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse(spec: Any, engine: Engine) -> Any:
        raise NotOffered("of two axes")

    engine = PartialEngine()
    engine.operations = {SoftmaxSpec: refuse}
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            assert engine.create(SoftmaxSpec((1, 2), 1)).memory is HOST
    assert caplog.messages == ["engine partial has no Softmax of two axes; engine reference runs it"]


def test_create_of_what_nobody_has_is_a_bug() -> None:
    with pytest.raises(AssertionError, match="engine device has no object and no engine to fall back on"):
        DeviceEngine().create(object())


def test_engine_with_a_fallback_on_other_memory_gives_the_same_results() -> None:
    host = create_engine("reference")
    partial = PartialEngine()
    assert run_two_layers(partial, partial) == run_two_layers(host, host)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_products_on_a_cpu_have_the_bits_of_numpys(dtype: DTypeLike) -> None:
    random, engine = np.random.default_rng(3), create_engine("reference")
    x, y = random.random((3, 50, 70)).astype(dtype), random.random((3, 70, 40)).astype(dtype)
    out = np.empty((3, 50, 40), dtype)
    assert engine.matmul(x, y, out=out) is out
    assert np.array_equal(out, np.matmul(x, y))
    assert np.array_equal(engine.matmul(x[0].T, x[1]), x[0].T @ x[1])
    assert engine.sum_squares(x.reshape(-1)) == np.dot(x.reshape(-1), x.reshape(-1))
    assert np.array_equal(engine.sum_squares(x[0]), np.einsum("ij,ij->i", x[0], x[0]))
