"""The reference engine's pooling: one pass over whole planes for each place within a window (a tap)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtrain.core.blob import Blob
from dtrain.core.engines.engine import Engine
from dtrain.core.engines.operations import PoolingOperation, PoolingSpec
from dtrain.core.engines.reference.global_pooling import GlobalAveragePooling, GlobalMaxPooling, is_global
from dtrain.core.engines.windows import Windows


def create_pooling(spec: PoolingSpec, engine: Engine) -> PoolingOperation:
    """Return what carries out `spec` by its method."""
    methods: dict[tuple[str, bool], Callable[[PoolingSpec, Engine], PoolingOperation]] = {
        ("MAX", False): MaxPooling,
        ("MAX", True): GlobalMaxPooling,
        ("AVE", False): AveragePooling,
        ("AVE", True): GlobalAveragePooling,
    }
    return methods[spec.method, is_global(spec)](spec, engine)


class MaxPooling:
    """Take each window's largest value, the first of equals; a NaN wins and stays visible."""

    def __init__(self, spec: PoolingSpec, engine: Engine) -> None:
        self.spec = spec
        self.xp = engine.xp
        self.memory = engine.memory
        self.windows = _windows(spec, engine)
        self._starts = [self.xp.asarray(_window_starts(spec, axis)) for axis in range(2)]
        self._winner: Any = None  # for each window the index of the tap that won

    def forward(self, x: Blob, y: Blob, mask: Blob | None) -> None:
        """Compute y.data, and the argmax h·W + w (−1 in a window without inputs) into mask.data if given."""
        x_data = x.read_data(self.memory)
        y_data = y.write_data(self.memory)
        seen = self.windows.seen(x_data, np.finfo(x_data.dtype).min)
        index_type = np.min_scalar_type(len(self.windows.taps)).type
        winner = self.xp.zeros(y_data.shape, index_type)
        y_data[...] = next(seen)
        for index, values in enumerate(seen, start=1):
            self.xp.maximum(winner, (values > y_data) * index_type(index), out=winner)
            self.xp.maximum(y_data, values, out=y_data)
        self._winner = winner
        if mask is not None:
            mask.write_data(self.memory)[...] = self._places()

    def backward(self, x: Blob, y: Blob) -> None:
        """Compute x.diff through the winners of the last forward."""
        y_diff = y.read_diff(self.memory)
        self.windows.scatter(x.write_diff(self.memory), lambda index: y_diff * (self._winner == index))

    def _places(self) -> Any:
        height, width = self.spec.x_shape[2:]
        tap_row, tap_column = self.xp.divmod(self._winner.astype(np.int64), self.spec.kernel[1])
        row, column = tap_row + self._starts[0][:, None], tap_column + self._starts[1]
        is_inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        return self.xp.where(is_inside, row * width + column, -1)


class AveragePooling:
    """Take each window's sum over its size, clipped to the input and its padding."""

    def __init__(self, spec: PoolingSpec, engine: Engine) -> None:
        self.xp = engine.xp
        self.memory = engine.memory
        self.windows = _windows(spec, engine)
        self._sizes = self.xp.asarray(np.outer(_window_lengths(spec, 0), _window_lengths(spec, 1)))

    def forward(self, x: Blob, y: Blob, mask: Blob | None) -> None:
        """Compute y.data; there is no mask."""
        assert mask is None, "average pooling has no mask"
        seen = self.windows.seen(x.read_data(self.memory), 0)
        y_data = y.write_data(self.memory)
        y_data[...] = next(seen)
        for values in seen:
            y_data += values
        y_data /= self._divisor(y_data.dtype)

    def backward(self, x: Blob, y: Blob) -> None:
        """Compute x.diff: each window's y.diff over its size, given to all its inputs."""
        y_diff = y.read_diff(self.memory)
        share = y_diff / self._divisor(y_diff.dtype)
        self.windows.scatter(x.write_diff(self.memory), lambda index: share)

    def _divisor(self, dtype: Any) -> Any:
        return self._sizes.astype(dtype)


def _windows(spec: PoolingSpec, engine: Engine) -> Windows:
    return Windows(engine.xp, spec.x_shape, spec.y_shape, spec.kernel, spec.stride, spec.pad)


def _window_starts(spec: PoolingSpec, axis: int) -> NDArray[np.int64]:
    """Return where along spatial axis 0 or 1 each window begins; inputs begin at 0."""
    return np.arange(spec.y_shape[2 + axis]) * spec.stride[axis] - spec.pad[axis]


def _window_lengths(spec: PoolingSpec, axis: int) -> NDArray[np.int64]:
    """Return how much of each window lies before the far end of the padding; 1 where nothing does."""
    starts = _window_starts(spec, axis)
    ends = np.minimum(starts + spec.kernel[axis], spec.x_shape[2 + axis] + spec.pad[axis])
    return np.maximum(ends - starts, 1)
