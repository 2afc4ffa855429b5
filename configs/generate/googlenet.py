"""GoogLeNet: nine inception modules, and two more classifiers on the way that only training has."""

from __future__ import annotations

from dataclasses import replace

from configs.generate.net_text import Images, Learning, NetText

ABOUT = """GoogLeNet on ImageNet (Szegedy et al., 2014): 22 layers with weights, three losses in training.
Layers are called as in BVLC's GoogLeNet, whose weights fit by name."""

IMAGES = Images(224, (104, 117, 123), batch_size=32)
XAVIER = Learning(
    'type: "xavier"', 'type: "constant" value: 0.2', ("lr_mult: 1 decay_mult: 1", "lr_mult: 2 decay_mult: 0")
)
SCORES = replace(XAVIER, bias_filler='type: "constant" value: 0')

# Table 1 of the paper: 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool proj.
MODULES = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
LOSSES_BEHIND = {"4a": "loss1", "4d": "loss2"}
POOLS_BEHIND = {"3b": "pool3/3x3_s2", "4e": "pool4/3x3_s2"}


def write(deploy: bool) -> str:
    """Return the prototxt of the net."""
    net = NetText("GoogleNet", IMAGES, deploy, XAVIER)
    top = _stem(net)
    for name, widths in MODULES.items():
        top = _inception(net, f"inception_{name}", top, widths)
        if name in LOSSES_BEHIND and not deploy:
            _auxiliary(net, LOSSES_BEHIND[name], top)
        if name in POOLS_BEHIND:
            top = net.pool(POOLS_BEHIND[name], top, "MAX", 3, 2)
    top = net.pool("pool5/7x7_s1", top, "AVE", 7, 1)
    top = net.dropout("pool5/drop_7x7_s1", top, 0.4)
    top = net.inner_product("loss3/classifier", top, 1000, SCORES)
    if deploy:
        net.score(top)
    else:
        _loss(net, "loss3", top, "loss3/loss3", 1)
    return net.text(ABOUT, "googlenet")


def _stem(net: NetText) -> str:
    top = _rectified(net, "conv1", "7x7_s2", "data", 64, 7, stride=2, pad=3)
    top = net.pool("pool1/3x3_s2", top, "MAX", 3, 2)
    top = _normalised(net, "pool1/norm1", top)
    top = _rectified(net, "conv2", "3x3_reduce", top, 64, 1)
    top = _rectified(net, "conv2", "3x3", top, 192, 3, pad=1)
    top = _normalised(net, "conv2/norm2", top)
    return net.pool("pool2/3x3_s2", top, "MAX", 3, 2)


def _inception(net: NetText, name: str, bottom: str, widths: tuple[int, ...]) -> str:
    """Append a module: windows of 1, 3 and 5 and a pooling side by side, the last three behind or before 1x1."""
    one, reduce_3, three, reduce_5, five, projection = widths
    tops = [_rectified(net, name, "1x1", bottom, one, 1)]
    top = _rectified(net, name, "3x3_reduce", bottom, reduce_3, 1)
    tops.append(_rectified(net, name, "3x3", top, three, 3, pad=1))
    top = _rectified(net, name, "5x5_reduce", bottom, reduce_5, 1)
    tops.append(_rectified(net, name, "5x5", top, five, 5, pad=2))
    top = net.pool(f"{name}/pool", bottom, "MAX", 3, 1, pad=1)
    tops.append(_rectified(net, name, "pool_proj", top, projection, 1))
    return net.concat(f"{name}/output", tops)


def _auxiliary(net: NetText, name: str, bottom: str) -> None:
    """Append a classifier that brings gradient to the layers before it."""
    top = net.pool(f"{name}/ave_pool", bottom, "AVE", 5, 3)
    top = _rectified(net, name, "conv", top, 128, 1)
    top = net.inner_product(f"{name}/fc", top, 1024)
    top = net.relu(f"{name}/relu_fc", top)
    top = net.dropout(f"{name}/drop_fc", top, 0.7)
    top = net.inner_product(f"{name}/classifier", top, 1000, SCORES)
    _loss(net, name, top, f"{name}/loss1", 0.3)


def _loss(net: NetText, name: str, scores: str, top: str, weight: float) -> None:
    # The layers' and tops' names are those in the logs of the well-known net; they follow no rule.
    layer = "loss3/loss3" if name == "loss3" else f"{name}/loss"
    net.layer(layer, "SoftmaxWithLoss", (scores, "label"), top, f"loss_weight: {weight:g}")
    net.accuracy(f"{name}/top-1", scores)
    net.accuracy(f"{name}/top-5", scores, top_k=5)


def _rectified(
    net: NetText,
    part: str,
    name: str,
    bottom: str,
    num_output: int,
    kernel: int,
    stride: int = 1,
    pad: int = 0,
) -> str:
    top = net.convolution(f"{part}/{name}", bottom, num_output, kernel, stride=stride, pad=pad)
    return net.relu(f"{part}/relu_{name.removesuffix('_s2')}", top)


def _normalised(net: NetText, name: str, bottom: str) -> str:
    return net.layer(name, "LRN", bottom, name, "lrn_param { local_size: 5 alpha: 0.0001 beta: 0.75 }")
