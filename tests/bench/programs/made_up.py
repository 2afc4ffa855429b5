"""The nets of configs/ on made-up data that lie in memory: for measuring, since times do not depend on values.

configs/NAME/train_val.prototxt ──> net_text ──> make_solver, or torch_net.py
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from google.protobuf import text_format

from dtrain.core.engines.engine import Engine
from dtrain.core.graph.net_recipe import read_net
from dtrain.core.graph.state_rules import is_included
from dtrain.core.layers import LAYERS
from dtrain.core.layers.parts.reading import ReadingLayer
from dtrain.core.net.memory_sharing import share_memory
from dtrain.core.prototxt import write_text
from dtrain.core.solver.recipe import read_recipe
from dtrain.core.solver.solver import Solver
from dtrain.dist.create import create_communicator
from dtrain.proto import caffe_pb2

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
LABEL = 3
RATES = "base_lr: 0.001 momentum: 0.9 weight_decay: 0.004"
# The images that a net sees, where they are not cropped by its file.
IMAGES = {"lenet": (1, 28, 28), "cifar10_quick": (3, 32, 32)}


def net_text(name: str, batch_size: int, image: str = 'type: "gaussian" std: 1') -> str:
    """Return the train net of configs/`name` with DummyData in place of what reads records.

    image: the filler of images, drawn anew in each pass; a constant is filled in once, so that what is put in its
    stead from outside stays. All labels are LABEL.
    """
    recipe = read_net(os.fspath(CONFIGS / name / "train_val.prototxt"), caffe_pb2.TRAIN)
    net = caffe_pb2.NetParameter(name=recipe.graph.name)
    for layer in recipe.document.message.layer:
        if is_included(layer, recipe.graph.state):
            if issubclass(LAYERS[layer.type], ReadingLayer):
                crop = layer.transform_param.crop_size
                layer = _dummy_data(layer, (batch_size, *(IMAGES.get(name) or (3, crop, crop))), image)
            net.layer.append(layer)
    return write_text(net)


def narrowed(text: str, num_channels: int) -> str:
    """Return the net with at most so many outputs of each layer, and what is depthwise as narrow: as many steps for a
    rank to go through, with next to no values in them.
    """
    net = text_format.Parse(text, caffe_pb2.NetParameter())
    for layer in net.layer:
        for param in (layer.convolution_param, layer.inner_product_param):
            if param.num_output > num_channels:
                param.num_output = num_channels
        if layer.convolution_param.group > 1:
            layer.convolution_param.group = min(layer.convolution_param.group, num_channels)
    return write_text(net)


def _dummy_data(
    layer: caffe_pb2.LayerParameter, shape: Sequence[int], image: str
) -> caffe_pb2.LayerParameter:
    dummy = caffe_pb2.LayerParameter(name=layer.name, type="DummyData", top=layer.top)
    param = dummy.dummy_data_param
    param.shape.add(dim=shape)
    param.shape.add(dim=shape[:1])
    text_format.Parse(image, param.data_filler.add())
    param.data_filler.add(type="constant", value=LABEL)
    return dummy


def solver_text(net: Path, rates: str = RATES) -> str:
    """Return the prototxt of a solver that trains a net and does nothing else."""
    return f'net: "{net}"\n{rates}\nlr_policy: "fixed"\nmax_iter: 100000\ndisplay: 0\n'


def make_solver(net: str, engine: Engine, rates: str = RATES, shares: bool = True) -> Solver:
    """Return a solver that trains the net of this prototxt text alone, as `dtrain train` would.

    shares: whether blobs share memory; not with --keep-blobs.
    """
    with tempfile.TemporaryDirectory() as folder:
        path, solver = Path(folder, "net.prototxt"), Path(folder, "solver.prototxt")
        path.write_text(net)
        solver.write_text(solver_text(path, rates))
        recipe = read_recipe(os.fspath(solver))
        made = Solver(recipe, engine=engine, communicator=create_communicator(None, {}))
    made.fuse()
    if shares:
        share_memory([made.net])
    return made
