"""Upgrades of old fields to today's, in memory, right after reading.

Follows caffe's upgrade_proto.cpp: net-level `input` becomes an Input layer, three ParamSpecs of a BatchNorm
are set to lr_mult 0, `solver_type` becomes `type`. `layers` (V0 and V1 nets) are refused with a sentence.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from dtrain.core.errors import UserError
from dtrain.core.prototxt import Document
from dtrain.core.prototxt.document import Path
from dtrain.proto import caffe_pb2

log = logging.getLogger(__name__)

NetDocument = Document[caffe_pb2.NetParameter]
SolverDocument = Document[caffe_pb2.SolverParameter]


def upgrade_net(document: NetDocument) -> NetDocument:
    """Return the NetParameter in `document` with today's fields; the message itself may be changed."""
    net = document.message
    if net.layers:
        raise UserError(
            f"{document.where('layers', 0)}: `layers` is the form of 2014 (V1 or V0), which this release does not "
            "read yet; write `layer` with a string type, as Caffe's upgrade_net_proto_text does"
        )
    for layer in net.layer:
        if layer.type == "BatchNorm" and len(layer.param) == 3:
            for spec in layer.param:
                spec.lr_mult = 0.0
                spec.decay_mult = 0.0
    return _upgrade_input(document) if net.input else document


def _upgrade_input(document: NetDocument) -> NetDocument:
    """Put an Input layer in front for the fields input, input_shape and input_dim."""
    net = document.message
    shapes = [list(shape.dim) for shape in net.input_shape]
    if not shapes:
        dims = list(net.input_dim)
        shapes = [dims[i : i + 4] for i in range(0, len(dims), 4)]
    if len(shapes) != len(net.input) or any(net.input_dim) and len(net.input_dim) % 4:
        raise UserError(
            f"{document.where('input', 0)}: input must come with one input_shape, or four input_dim, each: "
            f"got {len(net.input)} inputs, {len(net.input_shape)} input_shape and {len(net.input_dim)} input_dim"
        )
    layer = caffe_pb2.LayerParameter(name="input", type="Input", top=list(net.input))
    for shape in shapes:
        layer.input_param.shape.add().dim.extend(shape)
    lines = {_one_further(path): line for path, line in document.lines.items()}
    lines["layer", 0] = document.line("input", 0)
    later = list(net.layer)
    for field in ("input", "input_shape", "input_dim", "layer"):
        net.ClearField(field)
    net.layer.append(layer)
    net.layer.extend(later)
    log.info("%s: the net-level input fields are read as an Input layer", document.path)
    return replace(document, lines=lines)


def _one_further(path: Path) -> Path:
    """Return the path of an element after a layer has been put in front of all others."""
    if len(path) > 1 and path[0] == "layer" and isinstance(path[1], int):
        return ("layer", path[1] + 1, *path[2:])
    return path


def upgrade_solver(document: SolverDocument) -> SolverDocument:
    """Return the SolverParameter in `document` with `type` instead of the old enum `solver_type`."""
    solver = document.message
    if solver.HasField("solver_type"):
        if solver.HasField("type"):
            raise UserError(f"{document.where('solver_type')}: give type or solver_type, not both")
        names = {"SGD": "SGD", "NESTEROV": "Nesterov", "ADAGRAD": "AdaGrad"}
        names |= {"RMSPROP": "RMSProp", "ADADELTA": "AdaDelta", "ADAM": "Adam"}
        solver.type = names[caffe_pb2.SolverParameter.SolverType.Name(solver.solver_type)]
        solver.ClearField("solver_type")
        log.info('%s: solver_type is read as type: "%s"', document.path, solver.type)
    return document
