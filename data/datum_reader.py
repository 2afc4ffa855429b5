"""Reads batches of Datums from a database: positions → records → Datums → transformed images and labels.

The batch reader of the Data layer.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dtrain.data.batch import Batch
from dtrain.data.batch_reader import BatchReader
from dtrain.data.datum import Datum, parse_datum
from dtrain.data.datum_batch import CanonicalLayout
from dtrain.data.image_batch import Image, errors_named, fill_images, put_images
from dtrain.data.image_codec import open_image
from dtrain.data.picture import Picture
from dtrain.data.record_source import RecordSource
from dtrain.data.sampler import Sampler
from dtrain.data.transformer import Transformer
from dtrain.data.workers import Workers


class DatumReader(BatchReader):
    """Read batches of images and labels; images may be stored as values or compressed, both in one database too.

    Compressed ones are decoded to the colors of the transformer's spec. The images of a batch come out in one
    size, which may be another in the next batch. record_shape: (C, H, W) of the first record. The arrays of a
    batch are images (N, C, h, w) and labels (N,). The workers end with the reader.

    Raises DataError when the first record is corrupt or does not fit the transformer.
    """

    def __init__(
        self,
        source: RecordSource,
        sampler: Sampler,
        transformer: Transformer,
        workers: Workers | None = None,
    ) -> None:
        self._source = source
        self._sampler = sampler
        self._transformer = transformer
        self._workers = workers or Workers()
        with errors_named(self._name, 0):
            first = parse_datum(source.read(0))
            image = self._open(first)
        self.record_shape = image.shape
        self._has_bytes = isinstance(image, Picture) or image.dtype == np.uint8
        if not first.encoded:
            transformer.spec.warn_of_colors()
        self.num_records = sampler.num_records
        self.shapes = (transformer.output_shape(self.record_shape), ())
        self._layout = CanonicalLayout(self.record_shape)

    def leave_images(self) -> Transformer | None:
        """Leave images as they are stored, if the first one is of bytes."""
        if not self._has_bytes:
            return None
        self.stored_shape = self.record_shape
        return self._transformer

    def reseed(self, seed: int) -> None:
        """Take the order of records and the random transformations from `seed`."""
        self._sampler.reseed(seed)
        self._transformer.seed = seed

    def read(self, positions: NDArray[np.int64], batch: Batch) -> None:
        """Fill `batch` with the records at `positions`, int64 (N,).

        Raises DataError that names database and record when one is corrupt or of another size than the first.
        """
        batch.epochs[:], batch.indices[:] = self._sampler.records(positions)
        indices = batch.indices.tolist()
        records = self._source.read_batch(indices)
        sliced = self._layout.slice_batch(records)
        if sliced is not None:
            images, batch.labels[:] = sliced
            put_images(batch, images, self.record_shape, self._transformer, self.stored_shape is not None)
            return

        def open_item(item: int) -> Image:
            datum = parse_datum(records[item])
            batch.labels[item] = datum.label
            return self._open(datum)

        def name_item(item: int) -> str:
            return self._name(indices[item])

        leaves_images = self.stored_shape is not None
        fill_images(batch, open_item, name_item, self._transformer, self._workers, leaves_images)

    def name_record(self, index: int) -> str:
        """Return the record's key and database."""
        return f'record "{self._source.key(index)}" of {self._source.path}'

    def close(self) -> None:
        """End the workers and close the database."""
        self._workers.close()
        self._source.close()

    def _open(self, datum: Datum) -> Image:
        return open_image(datum.data, self._transformer.spec.colors) if datum.encoded else datum.image()

    def _name(self, index: int) -> str:
        return f'{self._source.path}: record "{self._source.key(index)}"'
