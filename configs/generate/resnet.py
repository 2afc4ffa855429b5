"""ResNet-50: sixteen bottleneck blocks, each of which adds to what goes into it."""

from __future__ import annotations

from configs.generate.net_text import Images, Learning, NetText

ABOUT = """ResNet-50 on ImageNet (He et al., 2015): 16 blocks of three convolutions with sums around them.
Layers are called as in the authors' net, whose weights fit by name; so its first convolution has biases."""

IMAGES = Images(224, (104, 117, 123), batch_size=32, test_batch_size=25)
MSRA = Learning('type: "msra"')
SCORES = Learning('type: "gaussian" std: 0.01')  # as Goyal et al., 2017; He et al. don't say

# Table 1 of the paper: number of blocks, channels inside of them; four times as many come out.
STAGES = {2: (3, 64), 3: (4, 128), 4: (6, 256), 5: (3, 512)}
WIDENING = 4


def write(deploy: bool) -> str:
    """Return the prototxt of the net."""
    net = NetText("ResNet-50", IMAGES, deploy, MSRA)
    top = net.convolution("conv1", "data", 64, 7, stride=2, pad=3)
    top = net.relu("conv1_relu", net.batch_norm("bn_conv1", "scale_conv1", top))
    top = net.pool("pool1", top, "MAX", 3, 2)
    for stage, (num_blocks, width) in STAGES.items():
        for number in range(num_blocks):
            top = _block(
                net, f"{stage}{'abcdef'[number]}", top, width, stride=2 if not number and stage > 2 else 1
            )
    top = net.pool("pool5", top, "AVE", 7, 1)
    net.score(net.inner_product("fc1000", top, 1000, SCORES))
    return net.text(ABOUT, "resnet")


def _block(net: NetText, name: str, bottom: str, width: int, stride: int) -> str:
    """Append a block; the first of a stage brings its input to the size and width of the sum."""
    around = bottom
    if name.endswith("a"):
        around = _normalised(net, f"{name}_branch1", bottom, WIDENING * width, 1, stride)
    top = _normalised(net, f"{name}_branch2a", bottom, width, 1, stride)
    top = net.relu(f"res{name}_branch2a_relu", top)
    top = _normalised(net, f"{name}_branch2b", top, width, 3)
    top = net.relu(f"res{name}_branch2b_relu", top)
    top = _normalised(net, f"{name}_branch2c", top, WIDENING * width, 1)
    return net.relu(f"res{name}_relu", net.add(f"res{name}", (around, top)))


def _normalised(net: NetText, name: str, bottom: str, num_output: int, kernel: int, stride: int = 1) -> str:
    top = net.convolution(
        f"res{name}", bottom, num_output, kernel, stride=stride, pad=kernel // 2, bias=False
    )
    return net.batch_norm(f"bn{name}", f"scale{name}", top)
