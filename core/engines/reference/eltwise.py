"""The reference engine's elementwise sum, product and maximum of several blobs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dtrain.core.blob import Blob
from dtrain.core.engines.engine import Engine
from dtrain.core.engines.operations import EltwiseSpec


def create_eltwise(spec: EltwiseSpec, engine: Engine) -> Eltwise:
    """Return what carries out `spec` by its operation."""
    operations: dict[str, Callable[[EltwiseSpec, Engine], Eltwise]] = {
        "SUM": EltwiseSum,
        "PROD": EltwiseProduct,
        "MAX": EltwiseMaximum,
    }
    return operations[spec.operation](spec, engine)


class EltwiseSum:
    """y = Σ coeff_i·x_i."""

    def __init__(self, spec: EltwiseSpec, engine: Engine) -> None:
        self.xp = engine.xp
        self.memory = engine.memory
        self.coeffs = spec.coeffs

    def forward(self, xs: Sequence[Blob], y: Blob) -> None:
        """Compute y.data."""
        first, *others = [x.read_data(self.memory) for x in xs]
        y_data = y.write_data(self.memory)
        self.xp.multiply(first, self.coeffs[0], out=y_data)
        for values, coeff in zip(others, self.coeffs[1:], strict=True):
            y_data += values if coeff == 1 else values * coeff

    def backward(self, xs: Sequence[Blob], y: Blob, wanted: Sequence[bool]) -> None:
        """Compute dx_i = coeff_i·dy."""
        y_diff = y.read_diff(self.memory)
        for x, coeff, is_wanted in zip(xs, self.coeffs, wanted, strict=True):
            if is_wanted:
                self.xp.multiply(y_diff, coeff, out=x.write_diff(self.memory))


class EltwiseProduct:
    """y = Π x_i."""

    def __init__(self, spec: EltwiseSpec, engine: Engine) -> None:
        self.xp = engine.xp
        self.memory = engine.memory
        self.is_stable = spec.stable_prod_grad

    def forward(self, xs: Sequence[Blob], y: Blob) -> None:
        """Compute y.data."""
        first, *others = [x.read_data(self.memory) for x in xs]
        y_data = y.write_data(self.memory)
        y_data[...] = first
        for values in others:
            y_data *= values

    def backward(self, xs: Sequence[Blob], y: Blob, wanted: Sequence[bool]) -> None:
        """Compute dx_i = dy·Π x_j over j ≠ i, or dy·y / x_i (not stable: undefined where x_i is 0)."""
        y_diff = y.read_diff(self.memory)
        for index, x in enumerate(xs):
            if wanted[index]:
                x_diff = x.write_diff(self.memory)
                x_diff[...] = self._others(xs, index) if self.is_stable else self._quotient(x, y)
                x_diff *= y_diff

    def _others(self, xs: Sequence[Blob], index: int) -> Any:
        first, *others = [x.read_data(self.memory) for j, x in enumerate(xs) if j != index]
        product = first
        for values in others:
            product = product * values
        return product

    def _quotient(self, x: Blob, y: Blob) -> Any:
        return y.read_data(self.memory) / x.read_data(self.memory)


class EltwiseMaximum:
    """y = max x_i; of the first two the second wins a tie, later ones must be strictly greater."""

    def __init__(self, spec: EltwiseSpec, engine: Engine) -> None:
        self.xp = engine.xp
        self.memory = engine.memory
        self._winner: Any = None  # for each element the index of the x that won

    def forward(self, xs: Sequence[Blob], y: Blob) -> None:
        """Compute y.data."""
        first, second, *others = [x.read_data(self.memory) for x in xs]
        y_data = y.write_data(self.memory)
        index_type = np.min_scalar_type(len(xs)).type
        winner = self.xp.asarray(first <= second, index_type)  # of scalars numpy makes no array by itself
        self.xp.maximum(first, second, out=y_data)
        for index, values in enumerate(others, start=2):
            self.xp.maximum(winner, (values > y_data) * index_type(index), out=winner)
            self.xp.maximum(y_data, values, out=y_data)
        self._winner = winner

    def backward(self, xs: Sequence[Blob], y: Blob, wanted: Sequence[bool]) -> None:
        """Compute dx_i = dy where x_i won, else 0."""
        y_diff = y.read_diff(self.memory)
        for index, x in enumerate(xs):
            if wanted[index]:
                self.xp.multiply(y_diff, self._winner == index, out=x.write_diff(self.memory))


Eltwise = EltwiseSum | EltwiseProduct | EltwiseMaximum
