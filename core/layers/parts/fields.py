"""Which fields of a LayerParameter a type of layer reads, so that one that has no effect does not pass in silence."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from dtrain.core.layers.layer import Layer
from dtrain.proto import caffe_pb2

_EXTENSIONS = "dtrain_param"
_ENDING = "_param"


@cache
def messages_of(type_name: str, layer_class: type[Layer]) -> frozenset[str]:
    """Return the names of the messages that a layer reads: what its class says, or the one named after its type."""
    if layer_class.messages is not None:
        return frozenset(layer_class.messages)
    wanted = f"{type_name}param".lower()
    return frozenset(name for name in _all_messages() if name.replace("_", "") == wanted)


def unread_messages(param: caffe_pb2.LayerParameter, layer_class: type[Layer]) -> list[str]:
    """Return the names of the messages that `param` sets and its type does not read."""
    read = messages_of(param.type, layer_class)
    given = [field.name for field, _ in param.ListFields()]
    return [name for name in given if name.endswith(_ENDING) and name != _EXTENSIONS and name not in read]


def unknown_extensions(param: caffe_pb2.LayerParameter, layer_class: type[Layer]) -> list[str]:
    """Return the names of the fields of dtrain_param that `param` sets and its type does not know."""
    given = [field.name for field, _ in param.dtrain_param.ListFields()]
    return [name for name in given if name not in layer_class.extensions]


def _all_messages() -> Iterator[str]:
    return (
        field.name for field in caffe_pb2.LayerParameter.DESCRIPTOR.fields if field.name.endswith(_ENDING)
    )
