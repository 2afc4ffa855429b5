"""The summary of nets whose params and multiplications are known from elsewhere or counted by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dtrain.core.engines import create_engine
from dtrain.core.graph.net_recipe import read_net
from dtrain.core.net.building import build_net
from dtrain.data.sampler import Shard
from dtrain.data.synthetic_reader import Synthetic
from dtrain.launcher.net_summary import blob_bytes, net_summary
from dtrain.proto import caffe_pb2
from tests.core.net_builder import inputs, make_net

ROOT = Path(__file__).resolve().parents[2]


def test_net_summary_of_lenet_has_its_431080_params_and_2293000_multiply_adds() -> None:
    recipe = read_net(str(ROOT / "configs/lenet/train_val.prototxt"), caffe_pb2.TRAIN)
    recipe = replace(recipe, synthetic=Synthetic(((1, 28, 28),)))
    net = build_net(recipe, create_engine("reference"), Shard(0, 1))
    lines = net_summary(net)
    net.close()
    # An image: 20·24²·25 + 50·8²·20·25 + 500·800 + 10·500 = 2,293,000.
    assert lines == [
        "  layer  type             tops             params  mult-adds  blobs MB",
        "  mnist  Data             64x1x28x28, 64                          0.20",
        "  conv1  Convolution      64x20x24x24         520     18.43M      2.95",
        "  pool1  Pooling          64x20x12x12                             0.74",
        "  conv2  Convolution      64x50x8x8        25,050     102.4M      0.82",
        "  pool2  Pooling          64x50x4x4                               0.20",
        "  ip1    InnerProduct     64x500          400,500      25.6M      0.13",
        "  relu1  ReLU             64x500",
        "  ip2    InnerProduct     64x10             5,010       320k      0.00",
        "  loss   SoftmaxWithLoss  scalar                                  0.00",
        "  total                                   431,080     146.8M      5.04",
        "  a batch of 64: 2.293M multiply-adds an image forward; params shared by layers count once",
    ]


def test_net_summary_of_a_shared_param_counts_it_once_in_the_total() -> None:
    layer = (
        'layer {{ name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{name}" param {{ name: "w" }} '
        "inner_product_param {{ num_output: 3 bias_term: false }} }}"
    )
    text = inputs(x=(2, 3)) + layer.format(name="a", bottom="x") + layer.format(name="b", bottom="a")
    rows = [line.split() for line in net_summary(make_net(text))]
    assert [row[3] for row in rows[2:4]] == ["9", "9"]
    assert rows[4][:2] == ["total", "9"]


def test_net_summary_leaves_splits_out() -> None:
    text = inputs(x=(2, 3)) + "".join(
        f'layer {{ name: "{name}" type: "ReLU" bottom: "x" top: "{name}" }}' for name in "ab"
    )
    net = make_net(text)
    assert "Split" in [layer.type for layer in net.layers]
    assert [line.split()[0] for line in net_summary(net)[1:-2]] == ["x", "a", "b"]


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        ('type: "ReLU" top: "x"', 0),  # in place
        ('type: "ReLU" top: "y"', 4 * 2 * 3 * 4),
        ('type: "Flatten" top: "y"', 0),
        ('type: "Reduction" top: "y"', 4),
    ],
)
def test_blob_bytes_of_tops_that_have_memory_of_their_own(layer: str, expected: int) -> None:
    net = make_net(inputs(x=(2, 3, 4)) + f'layer {{ name: "y" bottom: "x" {layer} }}')
    assert blob_bytes(net.tops) == [4 * 2 * 3 * 4, expected]
