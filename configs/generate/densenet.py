"""DenseNet-121: four dense blocks, in which each layer reads what all layers before it have made."""

from __future__ import annotations

from configs.generate.net_text import Images, Learning, NetText

ABOUT = """DenseNet-121 on ImageNet (Huang et al., 2016): each layer of a block adds 32 channels to those before it.
Layers are called as in the Caffe nets of the field, whose weights fit by name."""

IMAGES = Images(224, (103.94, 116.78, 123.68), batch_size=32, test_batch_size=25, scale=0.017)
MSRA = Learning('type: "msra"')

# Table 1 of the paper: the layers of each block.
BLOCKS = {2: 6, 3: 12, 4: 24, 5: 16}
GROWTH = 32
BOTTLENECK = 4 * GROWTH


def write(deploy: bool) -> str:
    """Return the prototxt of the net."""
    net = NetText("DenseNet-121", IMAGES, deploy, MSRA)
    top, width = net.convolution("conv1", "data", 64, 7, stride=2, pad=3, bias=False), 64
    top = net.relu("relu1", net.batch_norm("conv1/bn", "conv1/scale", top))
    top = net.pool("pool1", top, "MAX", 3, 2, pad=1, extra=" round_mode: FLOOR")
    for block, num_layers in BLOCKS.items():
        for number in range(1, num_layers + 1):
            top = _dense(net, f"{block}_{number}", top)
        width += num_layers * GROWTH
        top = _activated(net, f"conv{block}_blk", f"relu{block}_blk", top)
        if block < 5:
            width //= 2
            top = net.convolution(f"conv{block}_blk", top, width, 1, bias=False)
            top = net.pool(f"pool{block}", top, "AVE", 2, 2)
    net.score(net.convolution("fc6", net.global_mean("pool5", top), 1000, 1))
    return net.text(ABOUT, "densenet")


def _dense(net: NetText, name: str, bottom: str) -> str:
    """Append a layer: 1x1 to few channels, 3x3 to the new ones, which join those before."""
    top = _activated(net, f"conv{name}/x1", f"relu{name}/x1", bottom)
    top = net.convolution(f"conv{name}/x1", top, BOTTLENECK, 1, bias=False)
    top = _activated(net, f"conv{name}/x2", f"relu{name}/x2", top, in_place=True)
    top = net.convolution(f"conv{name}/x2", top, GROWTH, 3, pad=1, bias=False)
    return net.concat(f"concat_{name}", (bottom, top))


def _activated(net: NetText, name: str, relu: str, bottom: str, in_place: bool = False) -> str:
    # What others read as well must stay as it is.
    top = bottom if in_place else f"{name}/bn"
    return net.relu(relu, net.batch_norm(f"{name}/bn", f"{name}/scale", bottom, top))
