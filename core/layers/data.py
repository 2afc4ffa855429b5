"""Data: batches of Datum records from a database, with Caffe's transformations.

Extensions (`dtrain_param`): `shuffle: true` reads every epoch in an order of its own, a function of (seed,
epoch), with shuffle_block nearly as the records lie on the disk; decode_threads. Follows caffe's data_layer.cpp,
except that every rank reads its share in TEST too (see docs/architecture.md) and that where to start is known, so
that a resumed run reads on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dtrain.core.blob import Blob
from dtrain.core.errors import UserError
from dtrain.core.layers.layer import LAYERS
from dtrain.core.layers.parts.images import make_workers, transform_spec
from dtrain.core.layers.parts.reading import ReadingLayer
from dtrain.core.layers.parts.record_order import make_sampler
from dtrain.core.layers.parts.synthetic import make_up_images
from dtrain.core.paths import resolve
from dtrain.data.datum_reader import DatumReader
from dtrain.data.picture import Colors
from dtrain.data.source import open_source
from dtrain.data.transformer import Transformer, TransformSpec
from dtrain.proto import caffe_pb2


@LAYERS.register("Data")
class Data(ReadingLayer):
    """Top 0: (batch_size, C, H, W), cropped, mirrored, mean subtracted, scaled. Top 1: labels (batch_size).

    data_param: source (relative to the working directory or to the net's file), backend, batch_size, prefetch.
    Compressed records are decoded as they are stored, unless force_encoded_color, or transform_param's
    force_color or force_gray, says otherwise. The shape follows the first record of each batch.
    """

    messages = ("data_param", "transform_param")
    extensions = ("shuffle", "shuffle_block", "shuffle_blocks_mixed", "decode_threads")

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Open the source and make the loader. Raises UserError or DataError if that can't be."""
        param = self.param.data_param
        if not param.source:
            raise UserError("data_param.source must name a database, got none")
        if not param.batch_size:
            raise UserError("data_param.batch_size must be at least 1, got none")
        path, spec = resolve(param.source, self.context.net_path), self._spec()
        makes_up = self.context.synthetic is not None
        reader = make_up_images(self, spec, path, self._open) if makes_up else self._open(path, spec)
        self.make_loader(reader, param.batch_size, param.prefetch)

    def _open(self, path: str, spec: TransformSpec) -> DatumReader:
        source = open_source(caffe_pb2.DataParameter.DB.Name(self.param.data_param.backend), path)
        return DatumReader(
            source,
            make_sampler(self, len(source)),
            Transformer(spec, train=self.phase == caffe_pb2.TRAIN, seed=self.context.random.seed),
            make_workers(self.param),
        )

    def _spec(self) -> TransformSpec:
        spec = transform_spec(self, may_be_compressed=True)
        if not self.param.data_param.force_encoded_color:
            return spec
        if spec.colors is Colors.GRAY:
            raise UserError(
                "data_param.force_encoded_color and transform_param.force_gray must not be set both; take one out"
            )
        return replace(spec, colors=Colors.COLOR)
