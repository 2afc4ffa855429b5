"""An operation of an engine for GPUs that runs all it is asked for once more, as a part of a captured iteration.

On the devices that are played that second run is refused what a CUDA graph can't have (tests/played/host_traffic.py).
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from dtrain.core.blob import Blob
from dtrain.core.kept import Kept
from dtrain.core.tensor import Memory, Tensor
from tests.played.cupy import REAL_GPU
from tests.played.host_traffic import forbid_host

ON_GPUS = ("cupy", "cudnn")


class Captured:
    """Stands before `operation`: forward and backward are run, put back, and run again with all values in `memory`.

    Both runs must come to the same results; those of the second stay. Run once are what draws on the host, as dropout
    does by a generator that is none of dtrain's, and backward from what forward has kept (core/kept.py), which it
    uses up: layers in place (tests/core/layers) run it twice.
    """

    def __init__(self, operation: Any, memory: Memory) -> None:
        self._operation = operation
        self._memory = memory

    def __getattr__(self, name: str) -> Any:
        return getattr(self._operation, name)

    def forward(self, *args: Any) -> None:
        self._run_twice(self._operation.forward, args)

    def backward(self, *args: Any) -> None:
        self._run_twice(self._operation.backward, args)

    def _run_twice(self, run: Callable[..., None], args: tuple[Any, ...]) -> None:
        tensors = list(dict.fromkeys(_tensors_in(args)))
        before, again = [_values_of(tensor) for tensor in tensors], copy.deepcopy(_generators_in(args))
        runs_once = self._keeps_values() or not all(map(_is_ours, again.values()))
        run(*args)
        if runs_once:
            return
        first = [_values_of(tensor) for tensor in tensors]
        for tensor, values in zip(tensors, before, strict=True):
            self._put_back(tensor, values)
        with forbid_host():
            run(*(again.get(i, arg) for i, arg in enumerate(args)))
        for tensor, values in zip(tensors, first, strict=True):
            off = 1e-5 if REAL_GPU in os.environ else 0.0  # cuDNN has algorithms that add in any order
            np.testing.assert_allclose(
                _values_of(tensor), values, rtol=off, atol=off * np.abs(values).max(initial=0.0)
            )

    def _keeps_values(self) -> bool:
        kept = (value for value in vars(self._operation).values() if isinstance(value, Kept))
        return any(each.values is not None for each in kept)

    def _put_back(self, tensor: Tensor, values: Any) -> None:
        storage = tensor.storage
        storage.is_shown = False
        storage.clear()
        if values is not None:
            tensor.write()[...] = values
            tensor.update(self._memory)


def _tensors_in(args: tuple[Any, ...]) -> Iterator[Tensor]:
    for arg in args:
        if isinstance(arg, list | tuple):
            yield from _tensors_in(tuple(arg))
        elif isinstance(arg, Blob):
            yield from (arg.data_tensor, arg.diff_tensor)


def _generators_in(args: tuple[Any, ...]) -> dict[int, np.random.Generator]:
    return {i: arg for i, arg in enumerate(args) if isinstance(arg, np.random.Generator)}


def _is_ours(random: np.random.Generator) -> bool:
    return isinstance(random.bit_generator, np.random.Philox)


def _values_of(tensor: Tensor) -> Any:
    """Return a copy of the values on the host, None if there are none yet; where the newest are stays as it is."""
    storage = tensor.storage
    if not storage.valid:
        return None
    valid = set(storage.valid)
    values = tensor.read().copy()
    storage.valid = valid
    return values
