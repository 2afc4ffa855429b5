"""What can be said about a net before a run: its layers, memory and data, as lines of text.

Stands behind the net in the flow prototxt → graph → net → solver → communicator → snapshot.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from dtrain.core.layers.parts.reading import ReadingLayer
from dtrain.core.net.net import Net
from dtrain.launcher.table import table_lines
from dtrain.proto import caffe_pb2

_FLOAT_BYTES = 4


def net_report(net: Net, phases: str = "") -> list[str]:
    """Return the lines on one net: its layers as a table, its memory, its data layers.

    phases: what the title says; by default the net's phase.
    """
    phases = phases or caffe_pb2.Phase.Name(net.phase)
    title = f'{phases} net "{net.name}" ({net.recipe.document.path}), {len(net.layers)} layers'
    rows = [("layer", "type", "tops", "params"), *layer_rows(net)]
    data = [data_line(layer, net.context.shard.world_size) for layer in net.reading_layers]
    return [title, *align(rows), memory_line(net), *data]


def layer_rows(net: Net) -> list[tuple[str, str, str, str]]:
    """Return for each layer its name, type, the names and shapes of its tops, and how many params."""
    return [
        (
            layer.name,
            layer.type,
            ", ".join(f"{name} {shape_text(blob.shape)}" for name, blob in zip(names, tops, strict=True)),
            f"{sum(blob.count for blob in layer.blobs):,}" if layer.blobs else "",
        )
        for layer, names, tops in zip(net.layers, net.top_names, net.tops, strict=True)
    ]


def shape_text(shape: Sequence[int]) -> str:
    """Return a shape as 64x1x28x28; a scalar's is "scalar"."""
    return "x".join(str(length) for length in shape) or "scalar"


def align(rows: Sequence[tuple[str, str, str, str]]) -> list[str]:
    """Return the rows as a table: columns padded to their widest cell, the last one to the right."""
    return table_lines(rows, num_texts=3, width=0)


def memory_line(net: Net) -> str:
    """Return the line on memory: params and blobs, data and diff each; splits share theirs."""
    num_params = sum(param.blob.count for param in net.learnable_params)
    blobs = {
        id(blob): blob
        for layer, tops in zip(net.layers, net.tops, strict=True)
        for blob in tops
        if layer.type != "Split"
    }
    num_values = sum(blob.count for blob in blobs.values())
    return (
        f"  memory: {num_params:,} params, {megabytes(num_params)} of data and of diff each; "
        f"blobs {megabytes(num_values)} each"
    )


def megabytes(num_values: int) -> str:
    """Return the size of so many float32 values."""
    return f"{num_values * _FLOAT_BYTES / 1e6:.1f} MB"


def data_line(layer: ReadingLayer, world_size: int) -> str:
    """Return the line on a layer that reads records: how many there are and how the ranks share them."""
    num_records, per_pass = layer.loader.num_records, layer.records_per_pass
    ranks = "1 rank" if world_size == 1 else f"each of {world_size} ranks"
    return (
        f'  data layer "{layer.name}": {num_records:,} records; '
        f"batch_size {layer.loader.batch_size} on {ranks}: "
        f"{per_pass} records a pass, {math.ceil(num_records / world_size):,} records a rank and "
        f"{num_records / per_pass:.6g} passes an epoch"
    )
