"""MobileNet v1 and v2: convolutions of one channel each, with 1x1 convolutions that mix the channels."""

from __future__ import annotations

from dataclasses import replace

from configs.generate.net_text import Images, Learning, NetText

ABOUT_V1 = """MobileNet v1 on ImageNet (Howard et al., 2017): 13 pairs of a depthwise and a 1x1 convolution.
Layers are called as in the Caffe nets of the field, whose weights fit by name."""
ABOUT_V2 = """MobileNet v2 on ImageNet (Sandler et al., 2018): 17 blocks, narrow outside and wide inside.
Layers are called as in the Caffe nets of the field, whose weights fit by name; see README.md for their strides."""

IMAGES = Images(224, (103.94, 116.78, 123.68), batch_size=32, scale=0.017)
MSRA = Learning('type: "msra"')
# The paper, section 3.1: hardly any weight decay where a filter has nine weights only.
UNDECAYED = replace(MSRA, rates=("lr_mult: 1 decay_mult: 0",))

# Table 1 of v1: channels behind the pair, stride of its depthwise convolution.
PAIRS = {
    "2_1": (64, 1),
    "2_2": (128, 2),
    "3_1": (128, 1),
    "3_2": (256, 2),
    "4_1": (256, 1),
    "4_2": (512, 2),
    **{f"5_{number}": (512, 1) for number in range(1, 6)},
    "5_6": (1024, 2),
    "6": (1024, 1),
}

# Table 2 of v2: channels behind the block, stride, channels inside over those before it.
BLOCKS = {
    "2_1": (16, 1, 1),
    "2_2": (24, 2, 6),
    "3_1": (24, 1, 6),
    "3_2": (32, 2, 6),
    "4_1": (32, 1, 6),
    "4_2": (32, 1, 6),
    "4_3": (64, 2, 6),
    "4_4": (64, 1, 6),
    "4_5": (64, 1, 6),
    "4_6": (64, 1, 6),
    "4_7": (96, 1, 6),
    "5_1": (96, 1, 6),
    "5_2": (96, 1, 6),
    "5_3": (160, 2, 6),
    "6_1": (160, 1, 6),
    "6_2": (160, 1, 6),
    "6_3": (320, 1, 6),
}


def write_v1(deploy: bool) -> str:
    """Return the prototxt of MobileNet v1."""
    net = NetText("MobileNet-v1", IMAGES, deploy, MSRA)
    top, width = _rectified(net, "1", "", "data", 32, 3, stride=2), 32
    for number, (num_output, stride) in PAIRS.items():
        top = _rectified(net, number, "/dw", top, width, 3, stride, group=width, learning=UNDECAYED)
        top = _rectified(net, number, "/sep", top, num_output, 1)
        width = num_output
    _classify(net, top)
    return net.text(ABOUT_V1, "mobilenet")


def write_v2(deploy: bool) -> str:
    """Return the prototxt of MobileNet v2."""
    net = NetText("MobileNet-v2", IMAGES, deploy, MSRA)
    top, width = _rectified(net, "1", "", "data", 32, 3, stride=2), 32
    for number, (num_output, stride, expansion) in BLOCKS.items():
        bottom, inside = top, expansion * width
        top = _rectified(net, number, "/expand", bottom, inside, 1)
        top = _rectified(net, number, "/dwise", top, inside, 3, stride, group=inside)
        top = _normalised(net, f"conv{number}/linear", top, num_output, 1)
        if stride == 1 and num_output == width:
            top = net.add(f"block_{number}", (bottom, top))
        width = num_output
    top = _rectified(net, "6_4", "", top, 1280, 1)
    _classify(net, top)
    return net.text(ABOUT_V2, "mobilenet")


def _classify(net: NetText, bottom: str) -> None:
    net.score(net.convolution("fc7", net.global_mean("pool6", bottom), 1000, 1))


def _rectified(
    net: NetText,
    number: str,
    part: str,
    bottom: str,
    num_output: int,
    kernel: int,
    stride: int = 1,
    group: int = 1,
    learning: Learning | None = None,
) -> str:
    top = _normalised(net, f"conv{number}{part}", bottom, num_output, kernel, stride, group, learning)
    return net.relu(f"relu{number}{part}", top)


def _normalised(
    net: NetText,
    name: str,
    bottom: str,
    num_output: int,
    kernel: int,
    stride: int = 1,
    group: int = 1,
    learning: Learning | None = None,
) -> str:
    pad = kernel // 2
    top = net.convolution(
        name, bottom, num_output, kernel, stride=stride, pad=pad, group=group, bias=False, learning=learning
    )
    return net.batch_norm(f"{name}/bn", f"{name}/scale", top)
