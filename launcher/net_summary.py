"""A net at a glance: its layers with their shapes, params, multiplications and memory, as a table for people.

Stands behind the net in the flow prototxt → graph → net → solver → communicator → snapshot.
"""

from __future__ import annotations

from collections.abc import Sequence

from dtrain.core.blob import Blob
from dtrain.core.net.net import Net
from dtrain.launcher.flops import count_multiply_adds
from dtrain.launcher.net_report import shape_text
from dtrain.launcher.simulation.work import find_batch_size
from dtrain.launcher.table import short_number, table_lines

_HEADER = ("layer", "type", "tops", "params", "mult-adds", "blobs MB")
_NUM_TEXTS = 3


def net_summary(net: Net) -> list[str]:
    """Return the table of the layers of the net's file, which has no splits, and what they come to together.

    mult-adds: multiplications with their additions in products of matrices, of a batch forward. blobs MB: the data of
    tops whose memory is no earlier layer's; gradients take as much again.
    """
    multiply_adds = count_multiply_adds(net)
    num_bytes = blob_bytes(net.tops)
    rows = [_HEADER]
    for i, (node, layer) in enumerate(zip(net.graph.nodes, net.layers, strict=True)):
        if not node.inserted:
            shapes = ", ".join(shape_text(blob.shape) for blob in net.tops[i])
            num_params = sum(blob.count for blob in layer.blobs)
            rows.append(
                (layer.name, layer.type, shapes, *_figures(num_params, multiply_adds[i], num_bytes[i]))
            )
    num_params = sum(param.blob.count for param in net.learnable_params)
    total = _figures(num_params, sum(multiply_adds), sum(num_bytes))
    lines = table_lines([*rows, ("total", "", "", *total)], _NUM_TEXTS)
    return [*lines, _batch_line(net, sum(multiply_adds))]


def blob_bytes(tops: Sequence[Sequence[Blob]]) -> list[int]:
    """Return for each layer's tops the bytes of their data, what tops of several layers share at the first alone."""
    seen: set[int] = set()
    sizes = []
    for blobs in tops:
        storages = {id(blob.data_tensor.storage): blob.data_tensor.storage for blob in blobs}
        new = [storage for key, storage in storages.items() if key not in seen]
        sizes.append(sum(storage.capacity * storage.dtype.itemsize for storage in new))
        seen.update(storages)
    return sizes


def _figures(num_params: int, multiply_adds: int, num_bytes: int) -> tuple[str, str, str]:
    return (
        f"{num_params:,}" if num_params else "",
        short_number(multiply_adds) if multiply_adds else "",
        f"{num_bytes / 1e6:,.2f}" if num_bytes else "",
    )


def _batch_line(net: Net, multiply_adds: int) -> str:
    batch_size = find_batch_size(net)
    each = short_number(multiply_adds / batch_size) if batch_size else "no"
    return f"  a batch of {batch_size}: {each} multiply-adds an image forward; params shared by layers count once"
