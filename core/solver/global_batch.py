"""The global batch: batch sizes of all ranks together, divided by the ranks before the nets are built.

Changes a recipe between its reading and the solver. What ranks compare, what the nets read and what a snapshot says
of its place in the data then follow from the recipe as ever.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dtrain.core.errors import UserError
from dtrain.core.graph.graph import layer_class_of
from dtrain.core.graph.node import Node
from dtrain.core.layers.parts.fields import messages_of
from dtrain.core.layers.parts.reading import ReadingLayer
from dtrain.core.solver.recipe import Recipe
from dtrain.proto import caffe_pb2

_FLAG = "--global-batch"


def with_global_batch(recipe: Recipe, world_size: int, num_records: int | None = None) -> Recipe:
    """Return `recipe` with a TRAIN net whose ranks read `num_records` records together in each pass.

    Arguments:
        num_records: by default the batch_size that the net's file gives. Each rank reads its world_size-th part.
    Test nets keep their batches, which are dealt whole. Where base_lr is for another number of records than an
    update takes (lr_scaling), that number stays what the files say.
    Raises UserError where the TRAIN net reads no records, its layers have several batch sizes, or the number is no
    multiple of world_size.
    """
    graph = recipe.train.graph
    readers = [node for node in graph.nodes if _reads(node)]
    written = _common_size(readers, graph.path)
    total = num_records or written
    _check_divisible(total, world_size, _FLAG if num_records else f"{readers[0].title}: {_FLAG}: batch_size")
    _keep_rate_basis(recipe, written)
    nodes = [_resized(node, total // world_size) if _reads(node) else node for node in graph.nodes]
    return replace(recipe, train=replace(recipe.train, graph=replace(graph, nodes=tuple(nodes))))


def _reads(node: Node) -> bool:
    return issubclass(layer_class_of(node), ReadingLayer)


def _common_size(readers: list[Node], path: str) -> int:
    if not readers:
        raise UserError(
            f"{path}: {_FLAG} needs a layer in TRAIN that reads records (Data, ImageData, HDF5Data, WindowData), "
            "got none; leave it out and give the sizes of one rank's inputs"
        )
    written = {node.title: _sizes_of(node.param).batch_size for node in readers}
    if len(set(written.values())) > 1:
        listed = "; ".join(f"{title} has {size}" for title, size in written.items())
        raise UserError(f"{_FLAG}: all layers that read records must have one batch_size, got: {listed}")
    return int(next(iter(written.values())))


def _check_divisible(total: int, world_size: int, where: str) -> None:
    below = total // world_size * world_size
    if below != total:
        near = f"{below} or {below + world_size}" if below else f"{world_size}"
        raise UserError(
            f"{where} must be a multiple of the number of ranks, {world_size}, got {total}; give {near}"
        )


def _keep_rate_basis(recipe: Recipe, written: int) -> None:
    """Write down which number of records base_lr is for, while the files' batch_size is known."""
    extra = recipe.solver.dtrain_param
    if extra.lr_scaling and not extra.HasField("lr_batch_size"):
        if not written:
            raise UserError(
                f"{recipe.document.where('dtrain_param')}: lr_scaling with {_FLAG} needs an lr_batch_size where "
                "the net gives no batch_size, got none"
            )
        extra.lr_batch_size = written * recipe.solver.iter_size


def _resized(node: Node, batch_size: int) -> Node:
    param = caffe_pb2.LayerParameter()
    param.CopyFrom(node.param)
    _sizes_of(param).batch_size = batch_size
    return replace(node, param=param)


def _sizes_of(param: caffe_pb2.LayerParameter) -> Any:
    """Return the message of a layer that reads records which has its batch_size: its data_param, say."""
    layer_class = layer_class_of(Node(param, 0, ""))
    messages = [getattr(param, name) for name in messages_of(param.type, layer_class)]
    return next(message for message in messages if "batch_size" in message.DESCRIPTOR.fields_by_name)
