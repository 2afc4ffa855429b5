"""What BVLC Caffe (CPU, 9b89154) itself computed for one layer each, in recorded/*.npz.

A file holds: net (prototxt: Inputs and the layer "l"), phase, in_<blob>, par_l_<i>, top_<blob>, post_l_<i>
(params after forward). Its seed_, din_ and dpar_ arrays say what Caffe's net did in backward: nothing, as no
layer here both learns and lies under a loss. So they are no test of a layer's gradient; the tables are. (HingeLoss
leaves what its gradient is made of in the bottom's diff already in forward: see test_class_loss_layers.py.)
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format

from dtrain.proto import caffe_pb2
from tests.core.layers.layer_harness import Array, Rig, make_rig

RECORDED = sorted((Path(__file__).parent / "recorded").glob("*.npz"))


@pytest.mark.parametrize("path", RECORDED, ids=[path.stem for path in RECORDED])
def test_layer_computes_what_caffe_recorded(path: Path) -> None:
    with np.load(path, allow_pickle=False) as file:
        record = dict(file)
    net = text_format.Parse(str(record["net"]), caffe_pb2.NetParameter())
    (param,) = (layer for layer in net.layer if layer.type != "Input")
    rig = _make(param, record)
    rig.forward()
    for name, blob in zip(param.top, rig.top, strict=True):
        _assert_close(blob.data, record[f"top_{name}"])
    for i, blob in enumerate(rig.layer.blobs):
        _assert_close(blob.data, record.get(f"post_l_{i}", record[f"par_l_{i}"]))


def _make(param: caffe_pb2.LayerParameter, record: dict[str, Array]) -> Rig:
    inputs = [record[f"in_{name}"] for name in param.bottom]
    phase = caffe_pb2.Phase.Value(str(record["phase"]))
    nameless = caffe_pb2.LayerParameter()
    nameless.CopyFrom(param)
    for field in ("bottom", "top"):
        nameless.ClearField(field)  # the harness gives its own names
    text = text_format.MessageToString(nameless)
    rig = make_rig(text, inputs, len(param.top), phase, dtype=np.float32)
    for i, blob in enumerate(rig.layer.blobs):
        blob.data[...] = record[f"par_l_{i}"]
    return rig


def _assert_close(value: Array, expected: Array) -> None:
    scale = max(1.0, float(np.abs(expected).max(initial=0)))
    assert value.shape == expected.shape
    np.testing.assert_allclose(value, expected, rtol=1e-4, atol=2e-6 * scale)


def test_recorded_results_are_there() -> None:
    assert len(RECORDED) == 76
