"""What the tests of the oneDNN engine share: blobs whose values lie in one layout, and the reference in float64.

The same operations are tested on plain values, with formulas of their own, in ../reference; here it is about layouts.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dtrain.core.blob import Blob
from dtrain.core.engines import create_engine
from dtrain.core.engines.onednn.binding import BF16, FLOAT32, Descriptor
from dtrain.core.engines.onednn.engine import OneDnnEngine
from dtrain.core.errors import MissingLibrary
from dtrain.core.tensor import HOST, Memory, Tensor

Array = NDArray[Any]
BLOCKED_BY_16 = 78  # the tag of channels in blocks of 16, for 4 axes
LAYOUTS = ("plain", "channels last", "blocked")
BF16_ROUNDOFF = 2.0**-8  # half the step between bf16 numbers, of 8 bits, relative to them


class Bench:
    """The engine under test, and the reference. values: the type of what lies in layouts."""

    values = FLOAT32
    tolerance = 1e-5

    def __init__(self, engine: OneDnnEngine) -> None:
        self.engine = engine
        self.reference = create_engine("reference")
        self.random = np.random.default_rng(3)

    def normal(self, *shape: int) -> Array:
        """Draw values that float32 and float64 hold alike."""
        return self.random.standard_normal(shape).astype(np.float32).astype(np.float64)

    def memory(self, layout: str, shape: tuple[int, ...]) -> Memory:
        """Return the memory of values of `shape` in one of LAYOUTS."""
        layouts, binding = self.engine.layouts, self.engine.binding
        if layout == "plain":
            return HOST
        if layout == "channels last":
            return layouts.memory(layouts.channels_last(shape, self.values), shape)
        handle = ctypes.c_void_p()
        name = "memory_desc_create_with_tag"
        binding.call(name, ctypes.byref(handle), len(shape), shape, self.values, BLOCKED_BY_16)
        return layouts.memory(Descriptor(binding, handle), shape)

    def place(self, tensor: Tensor, layout: str) -> None:
        """Move a tensor's values into a layout; whoever reads the host's copy all the same finds NaN."""
        memory = self.memory(layout, tensor.shape)
        if memory is not HOST:
            tensor.read(memory)
            tensor.read()[...] = np.nan
            tensor.storage.valid = {memory}

    def blob(self, data: Array, layout: str, diff: Array | float = np.nan) -> Blob:
        """Return a float32 blob with data in a layout; its diff is NaN unless given."""
        blob = Blob(data.shape)
        blob.data[...], blob.diff[...] = data, diff
        self.place(blob.data_tensor, layout)
        return blob

    def exact(self, data: Array, diff: Array | float = np.nan) -> Blob:
        """Return a float64 blob for the reference."""
        blob = Blob(data.shape, np.float64)
        blob.data[...], blob.diff[...] = data, diff
        return blob

    def expect(self, actual: Array, expected: Array, tolerance: float | None = None) -> None:
        """Assert that values agree within the tolerance, by default the rounding of the type of values."""
        assert actual.shape == expected.shape
        scale = max(1.0, np.abs(expected).max(initial=0.0))
        np.testing.assert_allclose(actual, expected, rtol=0, atol=(tolerance or self.tolerance) * scale)

    def check_unary(
        self,
        spec: Any,
        layout: str,
        run: Callable[..., None] | None = None,
        in_place: bool = False,
        y_shape: Sequence[int] | None = None,
        gradient_tolerance: float | None = None,
    ) -> set[Memory]:
        """Run an operation of one bottom in a layout, compare with the reference and return where y was.

        run: how forward is called, given operation, x and y.
        """
        x, y_diff = self.normal(*spec.x_shape), self.normal(*(y_shape or spec.x_shape))
        run = run or (lambda operation, x, y: operation.forward(x, y))
        results = []
        for engine, x_blob in ((self.reference, self.exact(x)), (self.engine, self.blob(x, layout))):
            y_blob = x_blob if in_place else Blob(y_diff.shape, x_blob.dtype)
            operation = engine.create(spec)
            run(operation, x_blob, y_blob)
            y_memory = y_blob.data_tensor.storage.valid.copy()
            y = y_blob.read_data().copy()
            y_blob.diff[...] = y_diff
            operation.backward(x_blob, y_blob)
            results.append((y, x_blob.read_diff().copy(), y_memory))
        (expected_y, expected_diff, _), (y, x_diff, memories) = results
        self.expect(y, expected_y)
        self.expect(x_diff, expected_diff, gradient_tolerance)
        return memories


class BF16Bench(Bench):
    """The engine that computes in bf16, and values that bf16 holds: so only results are rounded, each once."""

    values = BF16
    tolerance = BF16_ROUNDOFF

    def normal(self, *shape: int) -> Array:
        """Draw multiples of 1/16 of at most 8 bits."""
        drawn: Array = np.clip(np.round(16 * super().normal(*shape)), -255, 255) / 16
        return drawn


@pytest.fixture(scope="session")
def onednn() -> OneDnnEngine:
    """Return the oneDNN engine."""
    try:
        engine = create_engine("onednn")
    except MissingLibrary:
        pytest.skip("oneDNN is not installed")
    assert isinstance(engine, OneDnnEngine)
    return engine


@pytest.fixture(scope="session")
def onednn_in_bf16(onednn: OneDnnEngine) -> OneDnnEngine:
    """Return the oneDNN engine that computes in bf16."""
    if not onednn.binding.library.has_bf16:
        pytest.skip("the CPU has no bf16")
    engine = create_engine("onednn", "BF16")
    assert isinstance(engine, OneDnnEngine)
    return engine


@pytest.fixture
def bf16_bench(onednn_in_bf16: OneDnnEngine) -> Bench:
    """Return a bench with the engine that computes in bf16."""
    return BF16Bench(onednn_in_bf16)


@pytest.fixture
def bench(onednn: OneDnnEngine) -> Bench:
    """Return a bench with the engine on it."""
    return Bench(onednn)
