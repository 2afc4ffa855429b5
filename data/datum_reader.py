"""Reads batches of Datums from a database: positions → records → Datums → transformed images and labels.

The batch reader of the Data layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtrain.data.batch import Batch
from dtrain.data.batch_reader import BatchReader
from dtrain.data.datum import Datum, parse_datum
from dtrain.data.datum_batch import CanonicalLayout
from dtrain.data.errors import DataError
from dtrain.data.record_source import RecordSource
from dtrain.data.sampler import Sampler
from dtrain.data.transformer import Transformer


class DatumReader(BatchReader):
    """Read batches of images and labels from records that are all of the size of the first.

    record_shape: (C, H, W) of the records. The arrays of a batch are images (N, C, h, w) and labels (N,).
    Raises DataError when the first record is corrupt or compressed, or does not fit the transformer.
    """

    def __init__(self, source: RecordSource, sampler: Sampler, transformer: Transformer) -> None:
        self._source = source
        self._sampler = sampler
        self._transformer = transformer
        self.record_shape = self._parse(source.read(0), 0).shape
        self.num_records = sampler.num_records
        self.shapes = (transformer.output_shape(self.record_shape), ())
        self._layout = CanonicalLayout(self.record_shape)

    def reseed(self, seed: int) -> None:
        """Take the order of records and the random transformations from `seed`."""
        self._sampler.reseed(seed)
        self._transformer.seed = seed

    def read(self, positions: NDArray[np.int64], batch: Batch) -> None:
        """Fill `batch` with the records at `positions`, int64 (N,).

        Raises DataError that names database and record when one is corrupt, compressed or of another size.
        """
        batch.epochs[:], batch.indices[:] = self._sampler.records(positions)
        indices = batch.indices.tolist()
        records = self._source.read_batch(indices)
        images, labels = self._layout.slice_batch(records) or self._slice_each(records, indices)
        self._transformer.transform_batch(images, batch.epochs, batch.indices, batch.data)
        batch.labels[:] = labels

    def name_record(self, index: int) -> str:
        """Return the record's key and database."""
        return f'record "{self._source.key(index)}" of {self._source.path}'

    def close(self) -> None:
        """Close the database."""
        self._source.close()

    def _slice_each(
        self, records: Sequence[memoryview], indices: list[int]
    ) -> tuple[list[NDArray[Any]], list[int]]:
        images, labels = [], []
        for record, index in zip(records, indices, strict=True):
            datum = self._parse(record, index)
            if datum.shape != self.record_shape:
                first, got = ("x".join(map(str, shape)) for shape in (self.record_shape, datum.shape))
                raise DataError(
                    f"{self._name(index)}: size must be {first} like the first record's, got {got}"
                )
            images.append(datum.image())
            labels.append(datum.label)
        return images, labels

    def _parse(self, record: memoryview, index: int) -> Datum:
        try:
            datum = parse_datum(record)
        except DataError as error:
            raise DataError(f"{self._name(index)}: {error.problem}") from None
        if datum.encoded:
            raise DataError(
                f"{self._name(index)}: image must be stored as pixels, got a compressed one; "
                "convert the images again without --encoded"
            )
        return datum

    def _name(self, index: int) -> str:
        return f'{self._source.path}: record "{self._source.key(index)}"'
