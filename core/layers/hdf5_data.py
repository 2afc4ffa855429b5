"""HDF5Data: batches of rows from the datasets of HDF5 files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dtrain.core.blob import Blob
from dtrain.core.errors import UserError
from dtrain.core.layers.layer import LAYERS, Arity
from dtrain.core.layers.parts.reading import ReadingLayer
from dtrain.core.layers.parts.synthetic import make_up_rows
from dtrain.core.paths import resolve
from dtrain.data.batch_reader import BatchReader
from dtrain.data.hdf5_reader import Hdf5Reader


@LAYERS.register("HDF5Data")
class HDF5Data(ReadingLayer):
    """Tops: (batch_size, …), the dataset of each top's name, as float32.

    hdf5_data_param: source, a text file with the path of an HDF5 file on each line; batch_size; shuffle, of files and
    of the rows within each. Files are read in slices, a share by each rank, and a resumed run reads on. Paths are
    relative to the working directory, to the list or to the net's file. Follows caffe's hdf5_data_layer.cpp.
    """

    tops = Arity(1, None)

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Open the files. Raises UserError or DataError if that can't be, or if there is a transform_param."""
        param = self.param.hdf5_data_param
        if self.param.HasField("transform_param"):
            raise UserError(
                "transform_param must be left out, HDF5 data are not transformed; prepare the file"
            )
        if not param.batch_size:
            raise UserError("hdf5_data_param.batch_size must be at least 1, got none")
        if not param.source:
            raise UserError("hdf5_data_param.source must name a list of HDF5 files, got none")
        listed = resolve(param.source, self.context.net_path)
        if self.context.synthetic is None:
            reader: BatchReader = self._open(listed)
        else:
            reader = make_up_rows(self, listed, lambda: self._open(listed), len(top), param.shuffle)
        self.make_loader(reader, param.batch_size)

    def _open(self, listed: str) -> Hdf5Reader:
        shuffle, seed = self.param.hdf5_data_param.shuffle, self.context.random.seed
        return Hdf5Reader(self._list_paths(listed), list(self.param.top), shuffle, seed)

    def _list_paths(self, listed: str) -> list[str]:
        try:
            lines = Path(listed).read_text().split()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "no text; is it the HDF5 file itself?"
            raise UserError(
                f"{listed}: hdf5_data_param.source must be a readable text file, got: {reason}"
            ) from None
        if not lines:
            raise UserError(f"{listed}: must name at least one HDF5 file, got none")
        return [resolve(resolve(line, listed), self.context.net_path) for line in lines]
