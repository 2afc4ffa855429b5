"""BatchNorm layers that name their three running sums as params, kept from learning them.

Follows caffe's upgrade_proto.cpp (UpgradeNetBatchNorm): exactly three ParamSpecs get lr_mult and decay_mult 0; their
names stay.
"""

from __future__ import annotations

from dtrain.core.graph.upgrade.step import NetDocument, Step
from dtrain.proto import caffe_pb2

_NUM_SUMS = 3


def _specs(net: caffe_pb2.NetParameter) -> list[caffe_pb2.ParamSpec]:
    layers = [layer for layer in net.layer if layer.type == "BatchNorm" and len(layer.param) == _NUM_SUMS]
    return [spec for layer in layers for spec in layer.param]


def _is_needed(net: caffe_pb2.NetParameter) -> bool:
    return any(spec.lr_mult != 0 or spec.decay_mult != 0 for spec in _specs(net))


def _upgrade(document: NetDocument) -> NetDocument:
    for spec in _specs(document.message):
        spec.lr_mult = spec.decay_mult = 0.0
    return document


BATCH_NORM = Step("the three params of each BatchNorm are read with lr_mult 0", _is_needed, _upgrade)
