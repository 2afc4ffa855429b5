"""What stock Caffe does not have is taken out, or named."""

from __future__ import annotations

from dtrain.core.graph.stock_caffe import STOCK_TYPES, find_foreign, strip_extensions
from dtrain.core.prototxt import parse_text
from dtrain.proto import caffe_pb2


def test_stock_types_are_as_many_as_bvlc_registers() -> None:
    assert len(STOCK_TYPES) == 61
    assert {"Convolution", "SPP", "Swish", "Python", "HDF5Output"} <= STOCK_TYPES
    assert STOCK_TYPES.isdisjoint({"FocalLoss", "Interp", "LayerNorm", "ROIPooling", "SmoothL1Loss"})


def test_strip_extensions_takes_them_out_at_every_depth() -> None:
    solver = parse_text(
        """base_lr: 1 dtrain_param { ema_decay: 0.5 }
        net_param { name: "n" layer { name: "a" dtrain_param { shuffle: true } }
          layer { name: "b" relu_param { negative_slope: 2 } } }
        test_net_param { layer { name: "c" dtrain_param { } } }""",
        caffe_pb2.SolverParameter,
    ).message
    assert strip_extensions(solver) == 3
    expected = """base_lr: 1 net_param { name: "n" layer { name: "a" }
        layer { name: "b" relu_param { negative_slope: 2 } } } test_net_param { layer { name: "c" } }"""
    assert solver == parse_text(expected, caffe_pb2.SolverParameter).message
    assert strip_extensions(solver) == 0


def test_find_foreign_names_types_and_fields_with_their_lines() -> None:
    text = """layer { name: "a" type: "Dropout" dropout_param { dropout_ratio: 0.5
        scale_train: false } }
      layer { name: "b"
        type: "FocalLoss"
        focal_loss_param { alpha: 1 } }
      layer { name: "c" type: "SoftmaxWithLoss" param { lr_mult: 0 } dtrain_param { label_smoothing: 0.1 } }"""
    assert find_foreign(parse_text(text, caffe_pb2.NetParameter, "net.prototxt")) == [
        'net.prototxt:2: layer "a": stock Caffe has no field dropout_param.scale_train',
        'net.prototxt:4: layer "b": stock Caffe has no type "FocalLoss"',
        'net.prototxt:5: layer "b": stock Caffe has no field focal_loss_param',
        'net.prototxt:6: layer "c": stock Caffe has no field dtrain_param',
    ]


def test_find_foreign_of_a_net_for_caffe_is_empty() -> None:
    net = 'layer { name: "c" type: "Convolution" convolution_param { num_output: 2 kernel_size: 3 } }'
    assert find_foreign(parse_text(net, caffe_pb2.NetParameter)) == []
