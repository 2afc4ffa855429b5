"""Documents from a test's own text, and what is compared of them."""

from __future__ import annotations

from dtrain.core.graph.upgrade import NetDocument, SolverDocument
from dtrain.core.prototxt import parse_text
from dtrain.proto import caffe_pb2

RELU = 'layer { name: "relu" type: "ReLU"\n  bottom: "x" top: "y" }'


def net_of(text: str) -> NetDocument:
    """Return a net as the reader gives it."""
    return parse_text(text, caffe_pb2.NetParameter, "net.prototxt")


def solver_of(text: str) -> SolverDocument:
    """Return a solver as the reader gives it."""
    return parse_text(text, caffe_pb2.SolverParameter, "solver.prototxt")


def message_of(text: str) -> caffe_pb2.NetParameter:
    """Return the expected message."""
    return net_of(text).message
