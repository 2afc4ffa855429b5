"""Whole files to be damaged that are written out here: nets, solvers, and the models of older Caffes."""

from __future__ import annotations

import gzip

from dtrain.proto import caffe_pb2

NETS = (
    """\
# A small net, with what people write.
name: "small"
layer {
  name: "data"
  type: "DummyData"
  top: "data"
  top: "label"
  include: { phase: TRAIN stage: "first" }
  dummy_data_param { shape { dim: [4, 1, 0x6, 06] } shape: < dim: 4 > data_filler { type: "gaussian" std: 1e-2f } }
}
layer { name: "input" type: "Input" top: "data" top: "label" exclude { phase: TRAIN stage: 'first' }
  input_param { shape { dim: 4 dim: 1 dim: 6 dim: 6 } shape { dim: 4 } } }
layer {
  name: "conv1"; type: "Convolution", bottom: "data" top: "conv1"
  param { lr_mult: 1 decay_mult: 1 } param { name: "bias" lr_mult: 2 decay_mult: 0 share_mode: PERMISSIVE }
  convolution_param { num_output: 2 kernel_size: 3 pad: 1 weight_filler { type: "xavier" variance_norm: AVERAGE } }
}
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" relu_param { negative_slope: -.5 engine: CAFFE } }
layer { name: "ip" type: "InnerProduct" bottom: "conv1" top: "ip" propagate_down: true
  inner_product_param { num_output: 10 bias_filler { type: "const" "ant" value: -1.5E+0 } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" loss_weight: 1
  loss_param { ignore_label: -1 normalization: 1 } }
layer { name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "acc\\"\\303\\251" include { phase: 1 } }
""",
    """\
name: "deploy" input: "data" input_dim: 1 input_dim: 3 input_dim: 8 input_dim: 8 force_backward: True
state { phase: TEST level: 2 stage: "a" stage: "b" }
layer { name: "bn" type: "BatchNorm" bottom: "data" top: "data" param { lr_mult: 0 } param { lr_mult: 0 }
  param { lr_mult: 0 } batch_norm_param { use_global_stats: t eps: 1e-5 }
  include { min_level: 1 max_level: 3 not_stage: "c" } }
layer { name: "pool" type: "Pooling" bottom: "data" top: "pool" pooling_param { pool: AVE global_pooling: 1 } }
layer { name: "w" type: "Scale" bottom: "pool" top: "w" blobs { shape { dim: 2 } data: [1, inf, -nan] } }
""",
    """\
name: "old"
layers { name: "data" type: DATA top: "data" top: "label" data_param { source: "db" batch_size: 2 backend: LMDB } }
layers { name: "ip" type: INNER_PRODUCT bottom: "data" top: "ip" blobs_lr: 1 blobs_lr: 2 weight_decay: 1
  param: "shared" blob_share_mode: STRICT inner_product_param { num_output: 3 } }
layers { name: "loss" type: SOFTMAX_LOSS bottom: "ip" bottom: "label" include { phase: TRAIN } }
""",
    """\
name: "oldest" input: "data" input_dim: 1 input_dim: 3 input_dim: 8 input_dim: 8
layers { layer { name: "pad1" type: "padding" pad: 1 } bottom: "data" top: "pad1" }
layers { layer { name: "conv1" type: "conv" num_output: 2 kernelsize: 3 weight_filler { type: "xavier" } blobs_lr: 1
  blobs_lr: 2 weight_decay: 1 weight_decay: 0 } bottom: "pad1" top: "conv1" }
layers { layer { name: "pool1" type: "pool" pool: MAX kernelsize: 2 stride: 2 } bottom: "conv1" top: "pool1" }
""",
)

SOLVERS = (
    """\
net: "net.prototxt"
test_iter: 10 test_interval: 500 # every 500 iterations
base_lr: 0.01 momentum: 0.9 weight_decay: 5e-4
lr_policy: "multistep" gamma: 0.1 stepvalue: 100 stepvalue: 200
display: 100 max_iter: 10000 snapshot: 5000 snapshot_prefix: "snaps/small"
test_state { stage: "first" } train_state: { stage: "first" } solver_mode: CPU random_seed: -1 type: "SGD"
""",
    """\
net_param { name: "inside" layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
  layer { name: "y" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 2 } } }
base_lr: 1 lr_policy: 'inv' power: 0.75 gamma: 1e-4 solver_type: NESTEROV clip_gradients: 35
regularization_type: "L1" iter_size: 2 average_loss: 20 snapshot_format: BINARYPROTO
""",
)

WORDS = (
    *(b"{", b"}", b"<", b">", b"[", b"]", b":", b",", b";", b'"', b"'", b"#", b"\n", b"\\", b"=", b"/", b"-"),
    *(
        b"layer {",
        b"layers {",
        b"layer: 3",
        b"} }",
        b"name: ",
        b'type: "ReLU" ',
        b'bottom: "data" ',
        b"top: 1 ",
    ),
    *(b"include { phase: TEST }", b"exclude {", b"net_param {", b"input: ", b"input_dim: 3 ", b"state <"),
    *(
        b"0",
        b"-1",
        b"1e999",
        b"-inf",
        b"nan",
        b"4294967296",
        b"99999999999999999999",
        b"0x",
        b"08",
        b"1.5",
        b"1f",
    ),
    *(b"\\x", b"\\777", b"\\U00110000", b"\xff", b"\xc3", b"\xef\xbb\xbf", b"\x00", b"\r", b"\xe2\x80\xa8"),
    *(b"{" * 2000, b"[" * 2000, b"layer{" * 500, b'"' * 999, b"9" * 5000, b"(" * 3000, b" " * 5000),
)


def old_models() -> list[bytes]:
    """Return .caffemodels of the generations V1 and V0, and one that is not packed and of doubles."""
    v1, v0, loose = (caffe_pb2.NetParameter(name=name) for name in ("v1", "v0", "loose"))
    blob = caffe_pb2.BlobProto(num=1, channels=1, height=2, width=3, data=[0.5] * 6, diff=[1.0] * 6)
    v1.layers.add(name="ip", type=caffe_pb2.V1LayerParameter.INNER_PRODUCT).blobs.append(blob)
    v0.layers.add().layer.CopyFrom(caffe_pb2.V0LayerParameter(name="ip", type="innerproduct", blobs=[blob]))
    shape = caffe_pb2.BlobShape(dim=[2, 2])
    loose.layer.add(name="ip", type="InnerProduct").blobs.add(shape=shape, double_data=[1.0, -2.0, 3.0, 0.0])
    return [net.SerializeToString() for net in (v1, v0, loose)]


def compressed(content: bytes) -> bytes:
    """Return the content as a gzip file, the same each time."""
    return gzip.compress(content, mtime=0)
