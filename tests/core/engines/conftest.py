"""What the tests of all engines share: one rig that runs an operation and judges its results.

The tests in reference/ ask for `rig` and so run once for each row of RIGS; a new engine is a new row there.
Expected values come from float64 formulas in the tests, gradients from their central differences.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dtrain.core.blob import Blob
from dtrain.core.engines import create_engine
from dtrain.core.errors import MissingLibrary
from tests.core.engines.captured import ON_GPUS, Captured
from tests.played.cudnn import play_cudnn
from tests.played.cupy import play_cupy

Array = NDArray[np.float64]

# engine, dtype of the blobs, tolerance of values, tolerance of gradients (both relative to the largest value)
RIGS = [
    ("reference", np.float64, 1e-12, 1e-7),
    ("reference", np.float32, 1e-5, 1e-4),
    ("onednn", np.float32, 1e-5, 1e-4),
    ("cupy", np.float64, 1e-12, 1e-7),
    ("cupy", np.float32, 1e-5, 1e-4),
    ("cudnn", np.float32, 1e-5, 1e-4),
]

STEP = 1e-5  # of the central differences: their error is of the order of its square


class Rig:
    """An engine, a dtype and what to expect of them."""

    def __init__(self, engine: str, dtype: Any, tolerance: float, gradient_tolerance: float) -> None:
        self.engine = create_engine(engine)
        if engine in ON_GPUS:
            create = self.engine.create
            self.engine.create = lambda spec: Captured(create(spec), self.engine.memory)  # type: ignore[method-assign]
        self.dtype = dtype
        self.tolerance = tolerance
        self.gradient_tolerance = gradient_tolerance
        self.random = np.random.default_rng(7)

    @property
    def neighbour_of_nan(self) -> float:
        """What may stand beside a NaN so that MAX pooling shows it: oneDNN passes over a NaN beside a number."""
        return np.nan if self.engine.name == "onednn" else 1.0

    def normal(self, *shape: int) -> Array:
        """Draw values that float32 and float64 hold alike."""
        return self.random.standard_normal(shape).astype(np.float32).astype(np.float64)

    def blob(self, data: Array, diff: Array | float = np.nan) -> Blob:
        """Return a blob with `data`, and NaN in diff unless given, so that what is not overwritten shows."""
        blob = Blob(data.shape, self.dtype)
        blob.data[...] = data
        blob.diff[...] = diff
        return blob

    def void(self, shape: tuple[int, ...], diff: Array | float = np.nan) -> Blob:
        """Return a blob whose data is NaN."""
        return self.blob(np.full(shape, np.nan), diff)

    def cleared(self, data: Array) -> Blob:
        """Return a blob with `data` and a diff that is cleared where NaN lay, which nobody holds."""
        blob = Blob(data.shape, self.dtype)
        blob.write_data()[...] = data
        blob.write_diff()[...] = np.nan
        blob.clear_diff()
        return blob

    def expect(self, actual: NDArray[Any], expected: NDArray[Any]) -> None:
        """Assert that shapes and values agree."""
        assert actual.shape == expected.shape
        scale = max(1.0, np.abs(expected).max(initial=0.0))
        np.testing.assert_allclose(actual, expected, rtol=0, atol=self.tolerance * scale)

    def expect_gradient(
        self, function: Callable[[Array], Array], x: Array, y_diff: Array, gradient: NDArray[Any]
    ) -> None:
        """Assert that `gradient` is that of ⟨y_diff, function(x)⟩, along three random directions."""
        assert gradient.shape == x.shape
        for _ in range(3):
            direction = self.random.standard_normal(x.shape)
            change = function(x + STEP * direction) - function(x - STEP * direction)
            expected = float((y_diff * change).sum()) / (2 * STEP)
            scale = float(np.linalg.norm(gradient) * np.linalg.norm(direction))
            assert float((gradient * direction).sum()) == pytest.approx(
                expected, rel=0, abs=self.gradient_tolerance * max(scale, 1.0)
            )

    def run_unary(self, spec: Any, x: Array, y_diff: Array, in_place: bool = False) -> tuple[Array, Array]:
        """Run an operation of one bottom forward and backward; return y.data and x.diff."""
        x_blob = self.blob(x)
        y_blob = x_blob if in_place else self.void(x.shape)
        operation = self.engine.create(spec)
        operation.forward(x_blob, y_blob)
        y = y_blob.data.copy()
        y_blob.diff[...] = y_diff
        operation.backward(x_blob, y_blob)
        return y, x_blob.diff

    def run_many_to_one(
        self, spec: Any, xs: Sequence[Array], y_diff: Array, wanted: Sequence[bool] | None = None
    ) -> tuple[Array, list[Array]]:
        """Run an operation of several bottoms forward and backward; return y.data and each x.diff."""
        x_blobs = [self.blob(x) for x in xs]
        y_blob = self.void(y_diff.shape, y_diff)
        operation = self.engine.create(spec)
        operation.forward(x_blobs, y_blob)
        operation.backward(x_blobs, y_blob, [True] * len(xs) if wanted is None else wanted)
        return y_blob.data, [x.diff for x in x_blobs]


@pytest.fixture(params=RIGS, ids=lambda row: f"{row[0]}-{np.dtype(row[1]).name}")
def rig(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Rig:
    """Return the rig of each engine and dtype in turn; those of GPUs are played, for want of one."""
    if request.param[0] == "cupy":
        play_cupy(monkeypatch)
    if request.param[0] == "cudnn":
        play_cudnn(monkeypatch)
    try:
        return Rig(*request.param)
    except MissingLibrary:
        pytest.skip("oneDNN is not installed")
