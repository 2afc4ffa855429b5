"""Read and write .caffemodel files: a net's layers with their trained blobs, as protobuf's NetParameter.

The last stage of the flow prototxt → graph → net → solver → communicator → snapshot, and the first when
training starts from weights. Reading walks the wire format over a mapping of the file, writing puts headers
between the arrays' own memory, so neither copies a weight. Follows Net::ToProto and
Net::CopyTrainedLayersFrom of Caffe's net.cpp.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import NamedTuple

from dtrain.core.snapshots import wire
from dtrain.core.snapshots.blob_proto import Array, Blob, Part, num_bytes, read_blob, shape_fits, write_blob
from dtrain.core.snapshots.commit import commit_file
from dtrain.core.snapshots.message_file import CAFFEMODEL, check_message_size, read_message
from dtrain.proto import caffe_pb2

# Field numbers of NetParameter and, for reading the layers of three generations, of their messages.
_NET_NAME, _NET_LAYERS, _NET_LAYER = 1, 2, 100
_V1_LAYER = 1


class _LayerNumbers(NamedTuple):
    name: int
    type: int
    blobs: int


_CURRENT = _LayerNumbers(name=1, type=2, blobs=7)
_V1 = _LayerNumbers(name=4, type=5, blobs=6)
_V0 = _LayerNumbers(name=1, type=2, blobs=50)


@dataclass(frozen=True)
class LayerWeights:
    """One layer of a .caffemodel.

    Attributes:
        name: the layer's name, by which weights find their layer.
        type: the type's name as the file's generation spells it ("Convolution", "CONVOLUTION", "conv"); "" in
            HDF5, which does not keep it.
        blobs: the params in their order, float32 or float64, read-only views of the file; None for one that
            is not in the file.
        legacy_dims: whether their shapes are four numbers from the time before BlobShape.
        owned_only: whether the file leaves out params that another layer owns, as in HDF5.
    """

    name: str
    type: str
    blobs: tuple[Array | None, ...]
    legacy_dims: bool = False
    owned_only: bool = False

    def has_shape(self, index: int, shape: Sequence[int]) -> bool:
        """Tell whether blob `index` fits a param of this shape, as Blob::ShapeEquals of Caffe's blob.cpp.

        Shapes must be equal; a legacy shape also fits one of fewer axes when its leading numbers are 1.
        """
        blob = self.blobs[index]
        assert blob is not None, f'layer "{self.name}" has no param {index} in its file'
        return shape_fits(blob.shape, shape, self.legacy_dims)


class LayerRecord(NamedTuple):
    """What a .caffemodel keeps of one layer.

    Attributes:
        parameter: the layer's message; blobs in it are left out.
        blobs: the params' values, float32 or float64.
        diffs: their gradients, for snapshot_diff; empty to leave them out.
        shared: the indices of the params that another layer owns; HDF5 leaves them out.
    """

    parameter: caffe_pb2.LayerParameter
    blobs: Sequence[Array]
    diffs: Sequence[Array] = ()
    shared: Collection[int] = ()


def read_caffemodel(path: str | os.PathLike[str]) -> list[LayerWeights]:
    """Read the layers of a .caffemodel of any generation (`layer`, V1 and V0 `layers`); copies no weight.

    Raises:
        UserError: the file is missing, unreadable, damaged, or a .solverstate.
    """
    return read_message(path, CAFFEMODEL, _read_net)


def write_caffemodel(path: str | os.PathLike[str], net_name: str, layers: Iterable[LayerRecord]) -> None:
    """Write a .caffemodel that Caffe loads; the file appears whole or not at all.

    Arguments:
        path: where; an existing file is replaced.
        net_name: the net's name.
        layers: in the net's order.
    Raises:
        UserError: the disk refuses, or the file would be larger than Caffe can read (2 GB).
    """
    commit_file(path, encode_caffemodel(path, net_name, layers))


def encode_caffemodel(
    path: str | os.PathLike[str], net_name: str, layers: Iterable[LayerRecord]
) -> list[Part]:
    """Return the bytes of a .caffemodel, in order: headers, and the arrays themselves.

    The arrays must not change until they are written.

    Raises:
        UserError: there are more bytes than Caffe can read; `path` is named.
    """
    parts: list[Part] = [wire.bytes_field(_NET_NAME, net_name.encode())]
    for layer in layers:
        parts += _write_layer(layer)
    check_message_size(path, parts)
    return parts


def check_diffs(layer: LayerRecord) -> None:
    """Raise ValueError unless a layer has a diff for each blob, or none."""
    if layer.diffs and len(layer.diffs) != len(layer.blobs):
        raise ValueError(
            f'layer "{layer.parameter.name}": {len(layer.diffs)} diffs for {len(layer.blobs)} blobs'
        )


def _write_layer(layer: LayerRecord) -> list[Part]:
    check_diffs(layer)
    parts: list[Part] = [_without_blobs(layer.parameter).SerializeToString()]
    for blob, diff in zip_longest(layer.blobs, layer.diffs):
        parts += write_blob(_CURRENT.blobs, blob, diff)
    return [wire.bytes_header(_NET_LAYER, num_bytes(parts)), *parts]


def _without_blobs(parameter: caffe_pb2.LayerParameter) -> caffe_pb2.LayerParameter:
    if not parameter.blobs:
        return parameter
    bare = caffe_pb2.LayerParameter()
    bare.CopyFrom(parameter)
    bare.ClearField("blobs")
    return bare


def _read_net(view: memoryview) -> list[LayerWeights]:
    layers: list[LayerWeights] = []
    for field in wire.walk(view):
        if field.number == _NET_LAYER:
            layers.append(_read_layer(field, _CURRENT))
        elif field.number == _NET_LAYERS:
            layers.append(_read_old_layer(field))
    if not layers:
        raise wire.WireError(len(view), "no layer before the end")
    return layers


def _read_old_layer(field: wire.Field) -> LayerWeights:
    """Read one of `layers`: a V1 layer, or the shell around a V0 layer."""
    inner = next((part for part in field.fields() if part.number == _V1_LAYER), None)
    return _read_layer(field, _V1) if inner is None else _read_layer(inner, _V0)


def _read_layer(field: wire.Field, numbers: _LayerNumbers) -> LayerWeights:
    name = layer_type = ""
    blobs: list[Blob] = []
    try:
        for part in field.fields():
            if part.number == numbers.name:
                name = part.text()
            elif part.number == numbers.type:
                layer_type = _v1_type(part) if numbers is _V1 else part.text()
            elif part.number == numbers.blobs:
                blobs.append(read_blob(part))
    except wire.WireError as error:
        raise wire.WireError(error.offset, f'layer "{name}": {error.problem}') from None
    return LayerWeights(name, layer_type, tuple(blob.values for blob in blobs), any(b.legacy for b in blobs))


def _v1_type(field: wire.Field) -> str:
    known = caffe_pb2.V1LayerParameter.LayerType.values()
    number = field.signed()
    return caffe_pb2.V1LayerParameter.LayerType.Name(number) if number in known else str(number)
