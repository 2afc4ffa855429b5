"""DummyData: blobs made by fillers, for trying out a net without data."""

from __future__ import annotations

from collections.abc import Sequence

from dtrain.core.blob import Blob
from dtrain.core.errors import UserError
from dtrain.core.fillers import fill
from dtrain.core.layers.layer import LAYERS, Arity, Layer
from dtrain.core.layers.parts.shapes import check_one_per_top, shape_of
from dtrain.proto import caffe_pb2

LEGACY_FIELDS = ("num", "channels", "height", "width")


@LAYERS.register("DummyData")
class DummyData(Layer):
    """Tops: shaped by shape, or by num, channels, height and width (old), filled by data_filler.

    Each is given once for all tops or once per top; without a filler the tops are 0. Constants are filled in
    once, other fillers draw anew in each forward pass. Follows caffe's dummy_data_layer.cpp.
    """

    bottoms = Arity(0, 0)
    tops = Arity(1, None)
    has_backward = False

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Shape the tops and fill constants. Raises UserError for a wrong number of shapes or fillers."""
        param = self.param.dummy_data_param
        check_one_per_top(len(param.data_filler), len(top), "dummy_data_param.data_filler", may_be_none=True)
        fillers = list(param.data_filler) or [caffe_pb2.FillerParameter()]
        shapes = _shapes(param, len(top))
        self.refills: list[tuple[int, caffe_pb2.FillerParameter]] = []
        for i, blob in enumerate(top):
            filler = fillers[i % len(fillers)]
            blob.reshape(*shapes[i % len(shapes)])
            self._fill(blob, i, filler)
            if filler.type != "constant":
                self.refills.append((i, filler))

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Do nothing: the shapes are fixed."""

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Draw the tops that are not constant."""
        for i, filler in self.refills:
            self._fill(top[i], i, filler)

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Do nothing: there is no bottom."""

    def _fill(self, blob: Blob, index: int, filler: caffe_pb2.FillerParameter) -> None:
        fill(blob.write_data(), filler, self.context.random.for_pass(f"{self.name}:{index}"))


def _shapes(param: caffe_pb2.DummyDataParameter, num_tops: int) -> list[tuple[int, ...]]:
    """Return one shape for all tops or one per top, from whichever of the two forms is used."""
    legacy = [list(getattr(param, field)) for field in LEGACY_FIELDS]
    if not any(legacy):
        check_one_per_top(len(param.shape), num_tops, "dummy_data_param.shape")
        return [shape_of(shape, "dummy_data_param.shape") for shape in param.shape]
    if param.shape:
        raise UserError(
            "dummy_data_param.shape must not be given together with num, channels, height and width"
        )
    for field, values in zip(LEGACY_FIELDS, legacy, strict=True):
        check_one_per_top(len(values), num_tops, f"dummy_data_param.{field}")
    return [tuple(values[i % len(values)] for values in legacy) for i in range(num_tops)]
