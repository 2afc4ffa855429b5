"""Transformation fields of data layers of 2014, moved from the layers' own messages into transform_param.

Follows caffe's upgrade_proto.cpp (UpgradeNetDataTransformation): only layers of 2014 and before are changed. In a
layer of today Caffe passes over such a field, and so does dtrain, with a warning.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from dtrain.core.graph.upgrade.lines import move_layers
from dtrain.core.graph.upgrade.step import NetDocument, Step
from dtrain.core.prototxt import Path
from dtrain.proto import caffe_pb2

log = logging.getLogger(__name__)

_FIELDS = ("scale", "mean_file", "crop_size", "mirror")
_V1 = caffe_pb2.V1LayerParameter
_MESSAGES: dict[int, str] = {
    _V1.DATA: "data_param",
    _V1.IMAGE_DATA: "image_data_param",
    _V1.WINDOW_DATA: "window_data_param",
}
# WindowData reads its own scale to this day.
_IGNORED: dict[str, tuple[str, tuple[str, ...]]] = {
    "Data": ("data_param", _FIELDS),
    "ImageData": ("image_data_param", _FIELDS),
    "WindowData": ("window_data_param", ("mean_file", "crop_size", "mirror")),
}


def _old_fields(layer: caffe_pb2.V1LayerParameter) -> list[str]:
    message = _MESSAGES.get(layer.type)
    if message is None or not layer.HasField(message):
        return []
    own = getattr(layer, message)
    return [field for field in _FIELDS if own.HasField(field)]


def _is_needed(net: caffe_pb2.NetParameter) -> bool:
    return any(_old_fields(layer) for layer in net.layers)


def _upgrade(document: NetDocument) -> NetDocument:
    for layer in document.message.layers:
        for field in _old_fields(layer):
            own = getattr(layer, _MESSAGES[layer.type])
            setattr(layer.transform_param, field, getattr(own, field))
            own.ClearField(field)
    return replace(document, lines=_move(document))


TRANSFORMS = Step("scale, mean_file, crop_size and mirror are read as transform_param", _is_needed, _upgrade)


def _move(document: NetDocument) -> dict[Path, int]:
    layers = document.message.layers

    def move(index: int, inside: Path) -> Path:
        message = _MESSAGES.get(layers[index].type)
        if len(inside) == 2 and inside[0] == message and inside[1] in _FIELDS:
            inside = ("transform_param", inside[1])
        return ("layers", index, *inside)

    return move_layers(document.lines, "layers", move)


def warn_of_ignored(document: NetDocument) -> None:
    """Warn of each transformation field that has no effect where it stands in a layer of today."""
    for i, layer in enumerate(document.message.layer):
        message, fields = _IGNORED.get(layer.type, ("", ()))
        if not message or not layer.HasField(message):
            continue
        own = getattr(layer, message)
        for field in fields:
            if own.HasField(field):
                where = document.where("layer", i, message, field)
                log.warning(
                    '%s: layer "%s": %s.%s has no effect, as in Caffe; move it to transform_param',
                    *(where, layer.name, message, field),
                )
