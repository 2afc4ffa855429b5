"""HDF5Output: writes its two bottoms to an HDF5 file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from dtrain.core.blob import Blob
from dtrain.core.errors import UserError
from dtrain.core.layers.layer import LAYERS, Arity, Layer
from dtrain.core.layers.parts.shapes import name_bottom
from dtrain.data.hdf5_library import hdf5_errors, open_hdf5

_LEGACY_AXES = 4


@LAYERS.register("HDF5Output")
class HDF5Output(Layer):
    """Bottoms: as many items each, at most 4 axes. No top.

    hdf5_output_param.file_name: the file, made anew by the first forward pass. It holds the datasets "data"
    (bottom 0) and "label" (bottom 1), with the four axes num, channels, height and width. Further passes append
    their items, where Caffe would fail. On several ranks each writes its own: out.h5, out_rank1.h5 … Follows
    caffe's hdf5_output_layer.cpp.
    """

    bottoms = Arity(2, 2)
    tops = Arity(0, 0)

    @property
    def needs_host(self) -> str:
        """Why it can't be captured."""
        return "writes a file"

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Name the file. Raises UserError if it has no name."""
        name = self.param.hdf5_output_param.file_name
        if not name:
            raise UserError("hdf5_output_param.file_name must name a file, got none")
        rank = self.context.shard.rank
        stem, ending = os.path.splitext(name)
        self.path = f"{stem}_rank{rank}{ending}" if rank else name
        self._file: Any = None

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Check the bottoms. Raises UserError unless they have as many items and at most 4 axes."""
        if bottom[0].shape[:1] != bottom[1].shape[:1]:
            raise UserError(
                f"the bottoms must have as many items, got {bottom[0].shape} and {bottom[1].shape}"
            )
        for i, blob in enumerate(bottom):
            if not 1 <= len(blob.shape) <= _LEGACY_AXES:
                raise UserError(
                    f"bottoms must have 1 to 4 axes, got {blob.shape} from {name_bottom(self, i)}"
                )

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Append the bottoms' items. Raises DataError if the file can't be written."""
        with hdf5_errors(self.path):
            if self._file is None:
                self._file = open_hdf5(self.path, "w")
            for name, blob in zip(("data", "label"), bottom, strict=True):
                self._append(name, blob)
            self._file.flush()

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Do nothing: nothing is computed from the bottoms."""

    def close(self) -> None:
        """Close the file; another forward pass would begin a new one."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _append(self, name: str, blob: Blob) -> None:
        values = blob.read_data()
        values = values.reshape(*values.shape, *[1] * (_LEGACY_AXES - values.ndim))
        if name not in self._file:
            self._file.create_dataset(
                name,
                data=values,
                maxshape=(None, *values.shape[1:]),
                chunks=(max(len(values), 1), *values.shape[1:]),
            )
            return
        dataset = self._file[name]
        if dataset.shape[1:] != values.shape[1:]:
            raise UserError(
                f'{self.path}: items of "{name}" must be {dataset.shape[1:]} as before, got {values.shape[1:]}'
            )
        dataset.resize(len(dataset) + len(values), axis=0)
        dataset[len(dataset) - len(values) :] = values
