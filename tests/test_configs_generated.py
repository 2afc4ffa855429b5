"""The nets of configs/ that configs/generate writes: the files, and that they are the nets of their papers."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format

from configs.generate.__main__ import CONFIGS, NETS, generate
from dtrain.core.engines import create_engine
from dtrain.core.graph.upgrade import upgrade_net
from dtrain.core.net.net import Net
from dtrain.core.prototxt import read_text
from dtrain.proto import caffe_pb2
from tests.core.net_builder import TRAIN, inputs, make_net

FILES = generate()
NUM_CLASSES = 1000


def densenet_multiplications() -> int:
    """Return those of DenseNet-121 by the table of its paper: block for block of planes that are halved behind it."""
    total, width = 112 * 112 * 64 * 3 * 7 * 7, 64
    for num_layers, size in ((6, 56), (12, 28), (24, 14), (16, 7)):
        for _ in range(num_layers):
            total += size * size * (width * 128 + 128 * 32 * 3 * 3)
            width += 32
        if size > 7:
            total += size * size * width * width // 2
            width //= 2
    return total + width * NUM_CLASSES


# Multiplications of one image, to the digits that the papers print, and what is known to differ.
NUM_MULTIPLICATIONS = {
    "googlenet": 1502e6
    - 34e6
    + 112 * 112 * 64 * 3 * 7 * 7,  # table 1, but for its first row, which is not 7x7
    "squeezenet": 0.86e9,  # 1.72 GFLOPS in the authors' README
    "resnet50": 3.8e9,
    "mobilenet_v1": 569e6,
    "mobilenet_v2": 300e6 + 112 * 112 * 32 * 32,  # the first block's 1x1 convolution, which widens nothing
    "densenet121": densenet_multiplications(),
}

# Layers of the published weights with the shapes of their first params, BatchNorm's and Scale's among them.
WEIGHTS = {
    "googlenet": {
        "conv1/7x7_s2": (64, 3, 7, 7),
        "inception_3a/5x5_reduce": (16, 192, 1, 1),
        "inception_4e/3x3": (320, 160, 3, 3),
        "inception_5b/pool_proj": (128, 832, 1, 1),
        "loss1/conv": (128, 512, 1, 1),
        "loss1/fc": (1024, 2048),
        "loss2/conv": (128, 528, 1, 1),
        "loss2/classifier": (1000, 1024),
        "loss3/classifier": (1000, 1024),
    },
    "squeezenet": {
        "conv1": (96, 3, 7, 7),
        "fire2/squeeze1x1": (16, 96, 1, 1),
        "fire5/expand3x3": (128, 32, 3, 3),
        "fire9/expand1x1": (256, 64, 1, 1),
        "conv10": (1000, 512, 1, 1),
    },
    "resnet50": {
        "conv1": (64, 3, 7, 7),
        "bn_conv1": (64,),
        "res2a_branch1": (256, 64, 1, 1),
        "bn3d_branch2b": (128,),
        "res4f_branch2c": (1024, 256, 1, 1),
        "scale5c_branch2a": (512,),
        "fc1000": (1000, 2048),
    },
    "mobilenet_v1": {
        "conv2_1/dw": (32, 1, 3, 3),
        "conv4_2/sep": (512, 256, 1, 1),
        "conv5_6/sep/bn": (1024,),
        "conv6/dw/scale": (1024,),
        "fc7": (1000, 1024, 1, 1),
    },
    "mobilenet_v2": {
        "conv2_1/expand": (32, 32, 1, 1),
        "conv2_2/dwise": (96, 1, 3, 3),
        "conv4_7/linear": (96, 384, 1, 1),
        "conv6_3/linear/scale": (320,),
        "conv6_4": (1280, 320, 1, 1),
        "fc7": (1000, 1280, 1, 1),
    },
    "densenet121": {
        "conv1": (64, 3, 7, 7),
        "conv2_1/x1/bn": (64,),
        "conv3_12/x1": (128, 480, 1, 1),
        "conv4_24/x2": (32, 128, 3, 3),
        "conv4_blk": (512, 1024, 1, 1),
        "conv5_blk/scale": (1024,),
        "fc6": (1000, 1024, 1, 1),
    },
}


@pytest.fixture(params=NETS, scope="module")
def folder(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def net(folder: str) -> Net:
    """Return the net as it is trained, with 2 random images and labels where its database would be."""
    size = {"squeezenet": 227}.get(folder, 224)
    message = read_text(CONFIGS / folder / "train_val.prototxt", caffe_pb2.NetParameter).message
    layers = [layer for layer in message.layer if layer.type != "Data"]
    text = text_format.MessageToString(caffe_pb2.NetParameter(layer=layers))
    net = make_net(inputs(data=(2, 3, size, size), label=(2,)) + text, TRAIN, engine=create_engine(None))
    random = np.random.default_rng(1)
    net.blobs["data"].data[...] = random.uniform(-1, 1, net.blobs["data"].shape)
    net.blobs["label"].data[...] = random.integers(0, NUM_CLASSES, 2)
    return net


@pytest.mark.parametrize("path", FILES, ids=str)
def test_generate_of_each_file_writes_what_is_committed(path: Path) -> None:
    assert (CONFIGS / path).read_text(encoding="utf-8") == FILES[path], "run python -m configs.generate"


@pytest.mark.parametrize("path", FILES, ids=str)
def test_upgrade_net_of_each_file_finds_nothing_old(path: Path) -> None:
    document = read_text(CONFIGS / path, caffe_pb2.NetParameter)
    before = caffe_pb2.NetParameter()
    before.CopyFrom(document.message)
    lines: list[str] = []
    assert upgrade_net(document, lines.append).message == before
    assert not lines


def test_net_of_each_folder_has_the_layers_of_published_weights(folder: str, net: Net) -> None:
    assert {name: net.params[name][0].shape for name in WEIGHTS[folder]} == WEIGHTS[folder]


def test_net_of_each_folder_multiplies_as_often_as_its_paper_says(folder: str, net: Net) -> None:
    num_images = net.blobs["data"].shape[0]
    total = 0
    for layer, top in zip(net.layers, net.tops, strict=True):
        if layer.type in ("Convolution", "InnerProduct") and not layer.name.startswith(("loss1", "loss2")):
            total += top[0].count * math.prod(layer.blobs[0].shape[1:])
    assert total / num_images == pytest.approx(NUM_MULTIPLICATIONS[folder], rel=0.02)


def test_net_of_each_folder_on_two_images_has_a_loss_of_guesses_and_finite_gradients(net: Net) -> None:
    weights = sum(net.blob_loss_weights.values())
    net.clear_param_diffs()
    assert net.forward() == pytest.approx(weights * math.log(NUM_CLASSES), rel=0.2)
    net.backward()
    learned = [param for param in net.learnable_params if param.learning_rate_multiplier]
    assert all(np.isfinite(param.blob.diff).all() for param in learned)
    assert all(np.any(param.blob.diff) for param in learned if not param.is_bias)
