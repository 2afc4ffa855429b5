"""Made-up records in place of those that a layer would read, if the user asks for it: their shape, and their reader.

The shape is what the user gives, else that of the data's first record, else what the layer's own fields say.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from dtrain.core.errors import UserError
from dtrain.core.layers.parts.reading import ReadingLayer
from dtrain.core.layers.parts.record_order import make_sampler
from dtrain.data.batch import Shape
from dtrain.data.batch_reader import BatchReader
from dtrain.data.datum_reader import DatumReader
from dtrain.data.errors import DataError
from dtrain.data.image_reader import ImageReader
from dtrain.data.sampler import Sampler
from dtrain.data.synthetic_reader import NUM_RECORDS, SyntheticReader
from dtrain.data.transformer import Transformer, TransformSpec
from dtrain.proto import caffe_pb2

log = logging.getLogger(__name__)

R = TypeVar("R", bound=BatchReader)

_NUM_COLORS = 3
_MEAN_BYTE = 127.5
_GIVEN = "--synthetic"


@dataclass(frozen=True)
class _Model:
    """What made-up records are made like. shapes: of a record's parts. origin: who says so."""

    shapes: tuple[Shape, ...]
    num_records: int
    origin: str


def make_up_images(
    layer: ReadingLayer,
    spec: TransformSpec,
    path: str,
    open_reader: Callable[[str, TransformSpec], DatumReader | ImageReader] | None = None,
    *,
    size: tuple[int, int, int] | None = None,
    shuffle_always: bool = False,
) -> BatchReader:
    """Return the reader of made-up images and labels, transformed by `spec`, which stands in for the layer's own.

    A mean file, which may be missing as the data are, is not read: the mean of all bytes takes its place.

    Arguments:
        path: where the data are, if they are there. open_reader: makes their reader; None: they tell nothing.
        size: (C, H, W) of the records by the layer's fields, if these say it; by default 3 channels of crop_size.
        shuffle_always: whether the layer shuffles in both phases.
    Raises UserError where nothing says the shape.
    """
    if spec.mean_file:
        spec = replace(spec, mean_file="", mean_values=(_MEAN_BYTE,))
    if size is None and spec.crop_size:
        size = (_NUM_COLORS, spec.crop_size, spec.crop_size)
    model = _given_images(layer)
    if model is None and open_reader is not None:
        model = _model_of_data(
            layer, path, lambda: open_reader(path, spec), lambda reader: [reader.record_shape, ()]
        )
    if model is None and size is not None:
        model = _Model((size, ()), NUM_RECORDS, "its own fields")
    if model is None:
        raise UserError(_no_shape(path, "there is no crop_size"))
    seed = layer.context.random.seed
    sampler = make_sampler(layer, model.num_records, shuffle_always)
    transformer = Transformer(spec, layer.phase == caffe_pb2.TRAIN, seed)
    return _announced(layer, model, SyntheticReader(model.shapes, sampler, transformer, seed))


def make_up_rows(
    layer: ReadingLayer, path: str, open_reader: Callable[[], BatchReader], num_tops: int, shuffle: bool
) -> BatchReader:
    """Return the reader of made-up rows, one array for each top, which stands in for the layer's own.

    Shapes that the user gives are those of the first tops; the others are numbers. Raises UserError where nothing
    says the shapes, or there are more of them than tops.
    """
    model = _given_rows(layer, num_tops)
    if model is None:
        model = _model_of_data(layer, path, open_reader, lambda reader: reader.shapes)
    if model is None:
        raise UserError(_no_shape(path, "nothing else says it"))
    seed = layer.context.random.seed
    sampler = Sampler(model.num_records, seed, shuffle)
    return _announced(layer, model, SyntheticReader(model.shapes, sampler, seed=seed))


def _given_images(layer: ReadingLayer) -> _Model | None:
    shapes = _given_shapes(layer)
    if shapes and (len(shapes) > 1 or len(shapes[0]) != len(("C", "H", "W"))):
        raise UserError(f"--synthetic: images must be given as CxHxW, got {_as_text(shapes)}")
    return _Model((*shapes, ()), NUM_RECORDS, _GIVEN) if shapes else None


def _given_rows(layer: ReadingLayer, num_tops: int) -> _Model | None:
    shapes = _given_shapes(layer)
    if len(shapes) > num_tops:
        raise UserError(
            f"--synthetic: {num_tops} tops must have at most as many shapes, got {_as_text(shapes)}"
        )
    return _Model((*shapes, *[()] * (num_tops - len(shapes))), NUM_RECORDS, _GIVEN) if shapes else None


def _given_shapes(layer: ReadingLayer) -> tuple[Shape, ...]:
    synthetic = layer.context.synthetic
    return () if synthetic is None else synthetic.shapes


def _model_of_data(
    layer: ReadingLayer, path: str, open_reader: Callable[[], R], shapes_of: Callable[[R], Sequence[Shape]]
) -> _Model | None:
    """Return the model that the first record of the data at `path` is; None, and say why, where there is none."""
    if not os.path.exists(path):
        return None
    try:
        reader = open_reader()
    except (DataError, UserError) as error:
        log.warning('layer "%s": no record can be a model for those made up: %s', layer.name, error)
        return None
    reader.close()
    return _Model(tuple(shapes_of(reader)), reader.num_records, f"the first record of {path}")


def _no_shape(path: str, reason: str) -> str:
    return (
        f'made-up records must have a shape, but "{path}" can\'t be read and {reason}; give --synthetic CxHxW'
    )


def _announced(layer: ReadingLayer, model: _Model, reader: SyntheticReader) -> SyntheticReader:
    shapes = _as_text(model.shapes)
    log.info(
        'layer "%s": %d made-up records of %s, after %s', layer.name, model.num_records, shapes, model.origin
    )
    layer.made_up = reader
    return reader


def _as_text(shapes: Sequence[Shape]) -> str:
    """Return shapes as 3x227x227,1: that of a number is 1."""
    return ",".join("x".join(map(str, shape)) or "1" for shape in shapes)
