"""The benchmarks' peer in PyTorch computes what dtrain computes: loss, gradients and an update, to 1e-4."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dtrain.core.engines import create_engine
from dtrain.core.net.net import Net
from dtrain.core.prototxt import parse_text
from dtrain.core.solver.recipe import read_recipe
from dtrain.core.solver.solver import Solver
from dtrain.dist.create import create_communicator
from dtrain.proto import caffe_pb2
from tests.bench.programs.made_up import net_text
from tests.core.net_builder import make_net

torch = pytest.importorskip("torch", reason="PyTorch is not installed; make bench brings it")

from tests.bench.programs.torch_net import TorchNet, sgd  # noqa: E402  (imports torch)

Batch = dict[str, Any]

DATA = """layer { name: "data" type: "Input" top: "data" top: "label"
  input_param { shape { dim: 5 dim: 4 dim: 13 dim: 11 } shape { dim: 5 } } }
"""
GAUSSIAN = 'weight_filler { type: "gaussian" std: 0.2 } bias_filler { type: "gaussian" std: 0.2 }'
SCORES = f"""layer {{ name: "ip" type: "InnerProduct" bottom: "y" top: "ip"
  param {{ lr_mult: 1 decay_mult: 1 }} param {{ lr_mult: 2 decay_mult: 0 }}
  inner_product_param {{ num_output: 3 {GAUSSIAN} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }}
"""


def convolution(name: str, bottom: str, top: str, fields: str = "kernel_size: 3") -> str:
    return (
        f'layer {{ name: "{name}" type: "Convolution" bottom: "{bottom}" top: "{top}" '
        f"convolution_param {{ num_output: 8 {fields} {GAUSSIAN} }} }}\n"
    )


def layer(kind: str, bottoms: str, top: str, fields: str = "", name: str = "") -> str:
    named = "".join(f'bottom: "{bottom}" ' for bottom in bottoms.split())
    return f'layer {{ name: "{name or kind + top}" type: "{kind}" {named} top: "{top}" {fields} }}\n'


def pooling(fields: str) -> str:
    return convolution("conv", "data", "conv") + layer(
        "Pooling", "conv", "y", f"pooling_param {{ {fields} }}"
    )


NORMALISED = convolution("conv", "data", "conv", "kernel_size: 3 bias_term: false") + layer(
    "BatchNorm", "conv", "conv"
)
LEARNED = """scale_param { bias_term: true filler { type: "uniform" min: 0.5 max: 2 }
  bias_filler { type: "gaussian" std: 1 } }"""

NETS = {
    "relu in place": convolution("conv", "data", "y") + layer("ReLU", "y", "y"),
    "leaky relu": convolution("conv", "data", "z")
    + layer("ReLU", "z", "y", "relu_param { negative_slope: 0.1 }"),
    "group, stride and pad": convolution("conv", "data", "y", "kernel_size: 3 group: 2 stride: 2 pad: 1"),
    "depthwise": convolution("conv", "data", "y", "kernel_size: 3 group: 4 pad: 1"),
    "dilation": convolution("conv", "data", "y", "kernel_size: 3 dilation: 2"),
    "oblong": convolution(
        "conv", "data", "y", "kernel_h: 3 kernel_w: 2 stride_h: 2 stride_w: 1 pad_h: 1 pad_w: 0"
    ),
    "max pooling, a window beyond": pooling("pool: MAX kernel_size: 2 stride: 2"),
    "max pooling, padded": pooling("pool: MAX kernel_size: 3 stride: 2 pad: 1"),
    "average pooling, a window clipped": pooling("pool: AVE kernel_size: 3 stride: 3"),
    "average pooling, padded": pooling("pool: AVE kernel_size: 3 stride: 2 pad: 1"),
    "average pooling, rounded down": pooling("pool: AVE kernel_size: 2 stride: 2 round_mode: FLOOR"),
    "average pooling of all": pooling("pool: AVE global_pooling: true"),
    "max pooling of all": pooling("pool: MAX global_pooling: true"),
    "lrn": convolution("conv", "data", "conv")
    + layer("LRN", "conv", "y", "lrn_param { local_size: 5 alpha: 2 beta: 0.75 k: 2 }"),
    "batch norm and scale in place": NORMALISED
    + layer("Scale", "conv", "conv", LEARNED)
    + layer("ReLU", "conv", "conv")
    + layer("Pooling", "conv", "y", "pooling_param { pool: MAX kernel_size: 2 stride: 2 }"),
    "batch norm and scale elsewhere": convolution("conv", "data", "conv", "kernel_size: 3 bias_term: false")
    + layer("BatchNorm", "conv", "norm", "batch_norm_param { eps: 0.01 }")
    + layer("Scale", "norm", "y", LEARNED),
    "batch norm alone": NORMALISED + layer("ReLU", "conv", "y"),
    "batch norm that two layers read": NORMALISED
    + layer("Scale", "conv", "scaled", LEARNED)
    + layer("Eltwise", "conv scaled", "y"),
    "residual": convolution("conv", "data", "a")
    + convolution("conv2", "a", "b", "kernel_size: 3 pad: 1")
    + layer("Eltwise", "a b", "y", "eltwise_param { operation: SUM }")
    + layer("ReLU", "y", "y"),
    "concat": convolution("conv", "data", "a")
    + convolution("conv2", "data", "b", "kernel_size: 5 pad: 1")
    + layer("Concat", "a b", "y"),
    "two losses": convolution("conv", "data", "y")
    + layer("InnerProduct", "y", "aside", f"inner_product_param {{ num_output: 4 {GAUSSIAN} }}")
    + layer("SoftmaxWithLoss", "aside label", "loss1", "loss_weight: 0.3")
    + layer("Accuracy", "aside label", "accuracy"),
}


def around(text: str) -> str:
    """Return layers from "data" to "y" as a net that learns."""
    return DATA + text + SCORES


def peer_of(net: Net, text: str) -> tuple[TorchNet, Batch]:
    """Return the net in PyTorch with the params of `net`, and a batch, which `net` gets too."""
    images, labels, random = net.blobs["data"], net.blobs["label"], np.random.default_rng(7)
    images.write_data()[...] = random.standard_normal(images.shape)
    labels.write_data()[...] = random.integers(0, 3, labels.shape)
    batch = {
        "data": torch.from_numpy(images.read_data().copy()),
        "label": torch.from_numpy(labels.read_data().astype(np.int64)),
    }
    peer = TorchNet(parse_text(text, caffe_pb2.NetParameter, "net").message, batch)
    peer.load_params({name: [blob.read_data() for blob in blobs] for name, blobs in net.params.items()})
    return peer, batch


def expect_same(text: str) -> None:
    """Check that dtrain and PyTorch have the same loss and gradients of a net."""
    net = make_net(text)
    peer, batch = peer_of(net, text)
    loss = net.forward()
    net.backward()
    peer_loss = peer(batch)
    peer_loss.backward()
    assert peer_loss.item() == pytest.approx(loss, rel=1e-4)
    learned = {name: blobs for name, blobs in net.params.items() if name in peer.of_layer}
    assert sum(map(len, learned.values())) == sum(not p.is_statistic for p in net.learnable_params)
    for layer_name, blobs in learned.items():
        for blob, param in zip(blobs, peer.of_layer[layer_name], strict=True):
            scale = np.abs(blob.read_diff()).max()
            assert scale > 0
            np.testing.assert_allclose(param.grad.numpy(), blob.read_diff(), atol=1e-4 * scale, rtol=0)


@pytest.mark.parametrize("name", NETS)
def test_torch_net_of_small_net_has_dtrains_loss_and_gradients(name: str) -> None:
    expect_same(around(NETS[name]))


@pytest.mark.parametrize("name", ["lenet", "cifar10_quick"])
def test_torch_net_of_net_in_configs_has_dtrains_loss_and_gradients(name: str) -> None:
    expect_same(net_text(name, 5, 'type: "constant"'))


def test_sgd_of_three_iterations_leaves_dtrains_params(tmp_path: Path) -> None:
    text = around(NETS["relu in place"])
    (tmp_path / "net.prototxt").write_text(text)
    path = tmp_path / "solver.prototxt"
    path.write_text(
        'net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" momentum: 0.9 weight_decay: 0.01 random_seed: 1'
    )
    recipe = read_recipe(str(path))
    solver = Solver(recipe, engine=create_engine("reference"), communicator=create_communicator(None, {}))
    peer, batch = peer_of(solver.net, text)
    optimizer = sgd(peer, 0.1, 0.9, 0.01)
    assert set(peer.rates) == {(1, 1), (2, 0)}
    solver.step(3)
    for _ in range(3):
        optimizer.zero_grad()
        peer(batch).backward()
        optimizer.step()
    solver.close()
    for param, theirs in zip(solver.net.learnable_params, peer.learned, strict=True):
        np.testing.assert_allclose(theirs.detach().numpy(), param.blob.read_data(), rtol=1e-4, atol=1e-5)


def test_torch_net_with_dropout_drops_and_scales() -> None:
    text = convolution("conv", "data", "z") + layer(
        "Dropout", "z", "y", "dropout_param { dropout_ratio: 0.25 }"
    )
    peer, batch = peer_of(make_net(around(text)), around(text))
    before, dropout = peer.steps[:2]
    z = before.run(batch["data"])
    y = dropout.run(z)
    is_kept = y != 0
    assert 0.70 < is_kept.float().mean() < 0.80
    torch.testing.assert_close(y[is_kept], z[is_kept] / 0.75)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (layer("Sigmoid", "data", "y"), "Sigmoid"),
        (layer("Eltwise", "data data", "y", "eltwise_param { operation: MAX }"), "but a sum"),
        (layer("Pooling", "data", "y", "pooling_param { kernel_size: 1 stride: 2 }"), "stride"),
        (layer("LRN", "data", "y", "lrn_param { norm_region: WITHIN_CHANNEL }"), "WITHIN_CHANNEL"),
        (layer("ReLU", "data", "y", "loss_weight: 1"), "loss_weight"),
    ],
)
def test_torch_net_of_what_it_does_not_know_raises(text: str, what: str) -> None:
    net = make_net(around(text))
    with pytest.raises(ValueError, match=what):
        peer_of(net, around(text))
