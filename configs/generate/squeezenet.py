"""SqueezeNet 1.0: eight fire modules, and no inner product."""

from __future__ import annotations

from configs.generate.net_text import Images, Learning, NetText

ABOUT = """SqueezeNet 1.0 on ImageNet (Iandola et al., 2016): as good as AlexNet with a fiftieth of its weights.
Layers are called as in the authors' net, whose weights fit by name."""

IMAGES = Images(227, (104, 117, 123), batch_size=64, mirror=False)
XAVIER = Learning('type: "xavier"')
GAUSSIAN = Learning('type: "gaussian" std: 0.01')

# Table 1 of the paper: squeeze 1x1, expand 1x1 (as many 3x3).
FIRES = {
    2: (16, 64),
    3: (16, 64),
    4: (32, 128),
    5: (32, 128),
    6: (48, 192),
    7: (48, 192),
    8: (64, 256),
    9: (64, 256),
}
POOLS_BEHIND = (4, 8)


def write(deploy: bool) -> str:
    """Return the prototxt of the net."""
    net = NetText("SqueezeNet", IMAGES, deploy, XAVIER)
    top = net.relu("relu_conv1", net.convolution("conv1", "data", 96, 7, stride=2))
    top = net.pool("pool1", top, "MAX", 3, 2)
    for number, (squeeze, expand) in FIRES.items():
        top = _fire(net, f"fire{number}", top, squeeze, expand)
        if number in POOLS_BEHIND:
            top = net.pool(f"pool{number}", top, "MAX", 3, 2)
    top = net.dropout("drop9", top, 0.5)
    # The authors' net has this padding, the paper's table has not: there the planes stay 13x13.
    top = net.relu("relu_conv10", net.convolution("conv10", top, 1000, 1, pad=1, learning=GAUSSIAN))
    net.score(net.global_mean("pool10", top))
    return net.text(ABOUT, "squeezenet")


def _fire(net: NetText, name: str, bottom: str, squeeze: int, expand: int) -> str:
    """Append a module: few channels, then many by windows of 1 and 3 side by side."""
    few = _rectified(net, name, "squeeze1x1", bottom, squeeze, 1)
    one = _rectified(net, name, "expand1x1", few, expand, 1)
    three = _rectified(net, name, "expand3x3", few, expand, 3, pad=1)
    return net.concat(f"{name}/concat", (one, three))


def _rectified(
    net: NetText, part: str, name: str, bottom: str, num_output: int, kernel: int, pad: int = 0
) -> str:
    top = net.convolution(f"{part}/{name}", bottom, num_output, kernel, pad=pad)
    return net.relu(f"{part}/relu_{name}", top)
