"""Layers of 2013 (V0), with all settings in one message, turned into layers of 2014 (V1).

Follows caffe's upgrade_proto.cpp (UpgradeV0Net): padding layers are folded, types and fields are renamed. A field
that its layer's type does not have is left out, as in Caffe, with a warning that names its line.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

from google.protobuf.message import Message

from dtrain.core.errors import Problems, UserError
from dtrain.core.graph.upgrade.lines import move_layers
from dtrain.core.graph.upgrade.padding import fold_padding
from dtrain.core.graph.upgrade.step import NetDocument, Step
from dtrain.core.graph.upgrade.v0_fields import TYPES, place_of
from dtrain.core.names import nearest
from dtrain.core.prototxt import Path
from dtrain.proto import caffe_pb2

log = logging.getLogger(__name__)

_SHELL_FIELDS = ("bottom", "top", "layer")


def _is_needed(net: caffe_pb2.NetParameter) -> bool:
    return any(shell.HasField("layer") for shell in net.layers)


def _upgrade(document: NetDocument) -> NetDocument:
    """Return the net with V1 layers. Raises UserError for unknown types, and V0 and V1 layers in one net."""
    _refuse_mixture(document)
    document = fold_padding(document)
    net = document.message
    problems = Problems()
    upgraded = caffe_pb2.NetParameter()
    upgraded.CopyFrom(net)
    upgraded.ClearField("layers")
    for i in range(len(net.layers)):
        with problems.collected(f"{document.where('layers', i, 'layer', 'type')}: "):
            upgraded.layers.append(_upgrade_layer(document, i))
    problems.raise_if_any()
    return replace(document, message=upgraded, lines=_move(document))


V0_TO_V1 = Step("layers of 2013 (V0) are read as layers of 2014", _is_needed, _upgrade)


def _refuse_mixture(document: NetDocument) -> None:
    problems = Problems()
    for i, shell in enumerate(document.message.layers):
        if not shell.HasField("layer"):
            problems.add(
                f'{document.where("layers", i)}: layer "{shell.name}": layers of 2014 (V1) must not stand beside '
                "those of 2013 (V0, `layers { layer { … } }`); write all in one form"
            )
    problems.raise_if_any()


def _upgrade_layer(document: NetDocument, index: int) -> caffe_pb2.V1LayerParameter:
    shell = document.message.layers[index]
    old = shell.layer
    new = caffe_pb2.V1LayerParameter(bottom=shell.bottom, top=shell.top)
    title = f'layer "{old.name}": '
    if old.HasField("type"):
        if old.type not in TYPES:
            hint = nearest(old.type, TYPES)
            raise UserError(
                f'{title}unknown type "{old.type}" of 2013 (V0); {hint + " " if hint else ""}'
                f"known: {', '.join(TYPES)}"
            )
        new.type = getattr(caffe_pb2.V1LayerParameter, TYPES[old.type])
    for field, value in old.ListFields():
        place = place_of(old.type, field.name)
        if place is not None:
            _put(new, place, value)
        elif field.name != "type":
            where = document.where("layers", index, "layer", field.name)
            log.warning('%s: %s%s is left out: "%s" has none', where, title, field.name, old.type)
    for field, _ in shell.ListFields():
        if field.name not in _SHELL_FIELDS:
            where = document.where("layers", index, field.name)
            log.warning("%s: %s%s is left out: layers of 2013 (V0) have none", where, title, field.name)
    return new


def _put(layer: caffe_pb2.V1LayerParameter, place: Path, value: Any) -> None:
    """Set, append or extend what is at `place`."""
    message: Any = layer
    for step in place[:-1]:
        message = getattr(message, str(step))
    name = str(place[-1])
    target = getattr(message, name)
    if isinstance(target, Message):
        target.CopyFrom(value)
    elif hasattr(target, "extend"):
        target.extend(value if hasattr(value, "extend") else [value])
    else:
        setattr(message, name, value)


def _move(document: NetDocument) -> dict[Path, int]:
    layers = document.message.layers

    def move(index: int, inside: Path) -> Path | None:
        if inside[:1] != ("layer",):
            return ("layers", index, *inside) if inside[:1] in ((), ("bottom",), ("top",)) else None
        if len(inside) == 1:
            return None
        if inside[1] == "type":
            return ("layers", index, "type")
        place = place_of(layers[index].layer.type, str(inside[1]))
        return ("layers", index, *place, *inside[2:]) if place is not None else None

    return move_layers(document.lines, "layers", move)
