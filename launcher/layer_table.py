"""What each layer of a timed net ran on, how its values lay, and how fast it was: a table for people.

Stands behind layer_times.py; Caffe's own lines know times alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dtrain.core.blob import Blob
from dtrain.core.engines.engine import ENGINES, operations_of
from dtrain.core.engines.onednn.layout_names import layout_name
from dtrain.core.engines.onednn.layouts import Layout
from dtrain.core.layers.layer import FusedLayers, Layer
from dtrain.core.net.net import Net
from dtrain.core.tensor import HOST
from dtrain.launcher.flops import count_flops, count_multiply_adds
from dtrain.launcher.layer_times import LayerTimes
from dtrain.launcher.simulation.work import find_batch_size
from dtrain.launcher.table import table_lines

_HEADER = ("layer", "type", "engine", "layout", "fwd ms", "bwd ms", "GFLOP/s", "share")
_NUM_TEXTS = 4


def find_layouts(net: Net) -> list[str]:
    """Run `net` forward and return where each layer has left the values of its first top.

    "plain" is a row-major array; other layouts have the engine's names for them. "" where nothing was written, or
    by the last one of layers that run as one.
    """
    layouts = []
    for i, top in enumerate(net.tops):
        net.run_layer(i)
        is_written = top and (i not in net.groups or i == net.groups[i].last)
        layouts.append(layout_of(top[0]) if is_written else "")
    return layouts


def layout_of(blob: Blob) -> str:
    """Return the name of the layout in which the newest values of `blob` lie; an engine's own before "plain"."""
    valid = blob.data_tensor.storage.valid
    names = [layout_name(memory) for memory in valid if isinstance(memory, Layout)]
    names += [memory.name for memory in valid if memory is not HOST and not isinstance(memory, Layout)]
    return min(names) if names else "plain" if valid else ""


def engine_of(layer: Layer | FusedLayers, xp: Any = np) -> str:
    """Return the engine whose operations the layer, or what several run as, uses.

    xp: for one that computes on arrays itself, their module.
    """
    folders = {type(operation).__module__.split(".")[-2] for operation in operations_of(layer)}
    if xp is not np and "reference" in folders:  # whose code other modules of arrays run too
        folders = (folders - {"reference"}) | {str(xp.__name__)}
    return "+".join(sorted(name for name in folders if name in ENGINES)) or str(xp.__name__)


def layer_table(net: Net, times: LayerTimes, layouts: Sequence[str]) -> list[str]:
    """Return the table of all layers in the order of the net, and a last line with sums and records a second.

    Times are means. GFLOP/s are those of multiplications and additions in products of matrices, both passes together;
    layers without such have none. Layers that run as one do so forward in the first one's row and backward in the
    last one's; the first one's rate is that of all.
    """
    forward, backward = (ms.mean(axis=0).tolist() for ms in (times.forward_ms, times.backward_ms))
    whole = sum(forward) + sum(backward)
    multiplies = [bool(count) for count in count_multiply_adds(net)]
    flops = [(f + b) * has for f, b, has in zip(*count_flops(net), multiplies, strict=True)]
    rows: list[tuple[str, ...]] = [_HEADER]
    for i, (layer, layout) in enumerate(zip(net.layers, layouts, strict=True)):
        group = net.groups.get(i)
        together = slice(i, i + 1) if group is None else slice(group.first, group.last + 1)
        who, rate = "fused", "-"
        if i == together.start:
            who = engine_of(layer if group is None else group.layers, layer.xp)
            rate = _rate(sum(flops[together]), sum(forward[together]) + sum(backward[together]))
        rows.append((layer.name, layer.type, who, layout, *_times(forward[i], backward[i], rate, whole)))
    rate = _rate(sum(flops), whole)
    rows.append(("total", "", "", "", *_times(sum(forward), sum(backward), rate, whole)))
    batch_size = find_batch_size(net)
    per_second = (
        f"  {whole:.3f} ms for {batch_size} images: {batch_size / whole * 1e3:.1f} images/s" if whole else ""
    )
    return [*table_lines(rows, _NUM_TEXTS), *filter(None, [per_second])]


def _times(forward_ms: float, backward_ms: float, rate: str, whole_ms: float) -> tuple[str, ...]:
    share = (forward_ms + backward_ms) / whole_ms if whole_ms else 0
    return f"{forward_ms:.3f}", f"{backward_ms:.3f}", rate, f"{share:.1%}"


def _rate(flops: float, ms: float) -> str:
    return f"{flops / ms / 1e6:.1f}" if flops and ms else "-"
