"""A net's own inputs (`input` with input_shape or input_dim), turned into an Input layer in front.

Follows caffe's upgrade_proto.cpp (UpgradeNetInput), but where shapes are missing: a file that describes a net to
be built is refused, and only the net in a .caffemodel loses its inputs.
"""

from __future__ import annotations

from dataclasses import replace

from dtrain.core.errors import UserError
from dtrain.core.graph.upgrade.lines import move_lines
from dtrain.core.graph.upgrade.step import NetDocument, Step
from dtrain.core.prototxt import Path
from dtrain.proto import caffe_pb2

_FIELDS = ("input", "input_shape", "input_dim")
_DIMS_PER_INPUT = 4


def _is_needed(net: caffe_pb2.NetParameter) -> bool:
    return len(net.input) > 0


def _upgrade(document: NetDocument) -> NetDocument:
    """Put an Input layer in front. Raises UserError unless each input has a shape."""
    net = document.message
    layer = caffe_pb2.LayerParameter(name="input", type="Input", top=list(net.input))
    for shape in _shapes(document):
        layer.input_param.shape.add().dim.extend(shape)
    lines = move_lines(document.lines, _move)
    lines["layer", 0] = document.line("input", 0)
    later = list(net.layer)
    drop_inputs(net)
    net.ClearField("layer")
    net.layer.append(layer)
    net.layer.extend(later)
    return replace(document, lines=lines)


INPUTS = Step("the net-level input fields are read as an Input layer", _is_needed, _upgrade)


def has_shapes(net: caffe_pb2.NetParameter) -> bool:
    """Return whether a net gives shapes to its inputs; old .caffemodel files don't."""
    return bool(net.input_shape or net.input_dim)


def drop_inputs(net: caffe_pb2.NetParameter) -> None:
    """Remove a net's own inputs."""
    for field in _FIELDS:
        net.ClearField(field)


def _shapes(document: NetDocument) -> list[list[int]]:
    net = document.message
    shapes = [list(shape.dim) for shape in net.input_shape]
    if not shapes:
        dims = list(net.input_dim)
        shapes = [dims[i : i + _DIMS_PER_INPUT] for i in range(0, len(dims), _DIMS_PER_INPUT)]
    if len(shapes) != len(net.input) or any(net.input_dim) and len(net.input_dim) % _DIMS_PER_INPUT:
        raise UserError(
            f"{document.where('input', 0)}: input must come with one input_shape, or four input_dim, each: "
            f"got {len(net.input)} inputs, {len(net.input_shape)} input_shape and {len(net.input_dim)} input_dim"
        )
    return shapes


def _move(path: Path) -> Path | None:
    """Return the path of an element after a layer has been put in front of all others."""
    if len(path) > 1 and path[0] == "layer" and isinstance(path[1], int):
        return ("layer", path[1] + 1, *path[2:])
    return None if path and path[0] in _FIELDS else path  # () is the net itself, inside a solver file
