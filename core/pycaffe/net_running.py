"""Running pycaffe's Net: forward and backward on a batch, or on as many items as there are.

Between net_view.py, which shows the net, and net.py, which makes it. Follows caffe's pycaffe.py.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from dtrain.core.errors import UserError
from dtrain.core.pycaffe.batches import Arrays, BatchResults, count_items, split_batches
from dtrain.core.pycaffe.net_view import NetView


class RunningNet(NetView):
    """The methods of a Net that compute."""

    def forward(
        self,
        blobs: Sequence[str] | None = None,
        start: str | None = None,
        end: str | None = None,
        **inputs: ArrayLike,
    ) -> Arrays:
        """Run layers start … end (names; all by default) and return views of the data of the outputs and `blobs`.

        With `end` the tops of that layer take the place of the outputs. inputs: arrays by the names of all the
        net's inputs, which are copied into their blobs. Raises UserError for other names or shapes.
        """
        first = 0 if start is None else self.index_of(start)
        last = len(self.layers) - 1 if end is None else self.index_of(end)
        names = [*(self.outputs if end is None else self.top_names[end]), *(blobs or ())]
        wanted = {name: self.blob(name) for name in names}
        if inputs:
            arrays = self._checked(inputs, self.inputs, "forward: the inputs")
            for name, values in arrays.items():
                self.blobs[name].data[...] = values
        self._forward(first, last)
        return {name: blob.data for name, blob in wanted.items()}

    def backward(
        self,
        diffs: Sequence[str] | None = None,
        start: str | None = None,
        end: str | None = None,
        **tops: ArrayLike,
    ) -> Arrays:
        """Run backward from layer start down to end (names) and return views of the inputs' diffs and of `diffs`.

        With `end` the bottoms of that layer take the place of the inputs. tops: diffs by the names of all the
        net's outputs. Raises UserError for other names or shapes.
        """
        first = len(self.layers) - 1 if start is None else self.index_of(start)
        last = 0 if end is None else self.index_of(end)
        names = [*(self.inputs if end is None else self.bottom_names[end]), *(diffs or ())]
        wanted = {name: self.blob(name) for name in names}
        if tops:
            arrays = self._checked(tops, self.outputs, "backward: the diffs")
            for name, values in arrays.items():
                self.blobs[name].diff[...] = values
        self._backward(first, last)
        return {name: blob.diff for name, blob in wanted.items()}

    def forward_all(self, blobs: Sequence[str] | None = None, **inputs: ArrayLike) -> Arrays:
        """Run forward over all items of the inputs, batch by batch, and return what the outputs and `blobs` had.

        Raises UserError as forward does, and for inputs of different lengths.
        """
        self._check_names(inputs, self.inputs, "forward_all: the inputs")
        _check_some(inputs, "forward_all")
        results = BatchResults()
        for batch in self._batch(inputs):
            results.add(self.forward(blobs, **batch))
        return self._joined(results, [*self.outputs, *(blobs or ())], count_items(inputs))

    def forward_backward_all(
        self, blobs: Sequence[str] | None = None, diffs: Sequence[str] | None = None, **arrays: ArrayLike
    ) -> tuple[Arrays, Arrays]:
        """Run forward and backward, batch by batch, and return (data by blob, diffs by blob).

        arrays: data by the names of inputs and diffs by the names of outputs; all of either may be left out.
        """
        _check_some(arrays, "forward_backward_all")
        inputs = {name: values for name, values in arrays.items() if name in self.inputs}
        tops = {name: values for name, values in arrays.items() if name not in inputs}
        datas, gradients = BatchResults(), BatchResults()
        none: dict[str, Any] = {}
        for data_batch, diff_batch in zip_longest(self._batch(inputs), self._batch(tops), fillvalue=none):
            datas.add(self.forward(blobs, **data_batch))
            gradients.add(self.backward(diffs, **diff_batch))
        num_items = count_items(inputs or tops)
        return (
            self._joined(datas, [*self.outputs, *(blobs or ())], num_items),
            self._joined(gradients, [*self.inputs, *(diffs or ())], num_items),
        )

    def reshape(self) -> None:
        """Give all blobs their shapes anew, after an input has been reshaped."""
        self._net.reshape()

    def clear_param_diffs(self) -> None:
        """Set the diffs of all params to 0."""
        self._net.clear_param_diffs()

    # -- pycaffe's inner methods ------------------------------------------------------------------------------

    def _forward(self, start: int, end: int) -> float:
        """Run layers start … end (indices, inclusive) and return their loss."""
        return self._net.forward(start, end)

    def _backward(self, start: int, end: int) -> None:
        """Run backward from layer `start` down to layer `end` (indices, inclusive)."""
        self._net.backward(start, end)

    def _batch(self, arrays: Mapping[str, ArrayLike]) -> Iterator[dict[str, Any]]:
        """Yield the arrays in batches as long as the net's first blob; the last is filled up with zeros."""
        return split_batches(arrays, self._batch_size)

    @property
    def _batch_size(self) -> int:
        first_shape = next(iter(self.blobs.values())).shape
        if not first_shape or not first_shape[0]:
            raise UserError(
                f"the net's first blob must have items to be fed in batches, got shape {first_shape}"
            )
        return first_shape[0]

    def _joined(self, results: BatchResults, names: Sequence[str], num_items: int) -> Arrays:
        joined = results.joined(self._batch_size, num_items)
        return {
            name: joined.get(name, np.zeros((0, *self.blob(name).shape[1:]), np.float32)) for name in names
        }

    def _checked(self, arrays: Mapping[str, ArrayLike], names: Collection[str], what: str) -> Arrays:
        """Return the arrays; raise UserError unless they are of `names` and fit their blobs."""
        self._check_names(arrays, names, what)
        checked = {name: np.asarray(values) for name, values in arrays.items()}
        for name, values in checked.items():
            shape = self.blobs[name].shape
            if values.shape[:1] != shape[:1] or not _broadcasts(values.shape, shape):
                raise UserError(
                    f'{what}: "{name}" must have the shape of its blob, {shape}, got {values.shape}; '
                    "to change the blob's: net.blobs[name].reshape(…), net.reshape()"
                )
        return checked

    def _check_names(self, arrays: Collection[str], names: Collection[str], what: str) -> None:
        if set(arrays) != set(names):
            raise UserError(f"{what} must be {', '.join(names) or 'none'}, got {', '.join(arrays) or 'none'}")


def _check_some(arrays: Collection[str], what: str) -> None:
    if not arrays:
        raise UserError(
            f"{what}: arrays must be given to go through, got none; forward() runs a single batch"
        )


def _broadcasts(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    try:
        return np.broadcast_shapes(shape, target) == target
    except ValueError:
        return False
