"""What each layer of a timed net ran on, how its values lay, and how fast it was: a table for people.

Stands behind layer_times.py; Caffe's own lines know times alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from dtrain.core.blob import Blob
from dtrain.core.engines.engine import ENGINES, Engine
from dtrain.core.engines.onednn.layout_names import layout_name
from dtrain.core.engines.onednn.layouts import Layout
from dtrain.core.layers.layer import Layer
from dtrain.core.net.net import Net
from dtrain.core.tensor import HOST
from dtrain.launcher.flops import count_flops, count_multiply_adds
from dtrain.launcher.layer_times import LayerTimes
from dtrain.launcher.simulation.work import find_batch_size
from dtrain.launcher.table import table_lines

_HEADER = ("layer", "type", "engine", "layout", "fwd ms", "bwd ms", "GFLOP/s", "share")
_NUM_TEXTS = 4
_ENGINES_FOLDER = "dtrain.core.engines."


def find_layouts(net: Net) -> list[str]:
    """Run `net` forward and return where each layer has left the values of its first top.

    "plain" is a row-major array; other layouts have the engine's names for them. "" where nothing was written.
    """
    layouts = []
    for i, top in enumerate(net.tops):
        net.forward_layer(i)
        layouts.append(layout_of(top[0]) if top else "")
    return layouts


def layout_of(blob: Blob) -> str:
    """Return the name of the layout in which the newest values of `blob` lie; an engine's own before "plain"."""
    valid = blob.data_tensor.storage.valid
    names = [layout_name(memory) for memory in valid if isinstance(memory, Layout)]
    names += [memory.name for memory in valid if memory is not HOST and not isinstance(memory, Layout)]
    return min(names) if names else "plain" if valid else ""


def engine_of(layer: Layer) -> str:
    """Return the engine whose operations the layer uses; for one that computes on arrays itself, their module."""
    names = {name for value in vars(layer).values() for name in _engines_in(value)}
    return "+".join(sorted(names)) or str(layer.xp.__name__)


def _engines_in(value: Any) -> Iterator[str]:
    for item in value if isinstance(value, list | tuple) else [value]:
        module = type(item).__module__
        if module.startswith(_ENGINES_FOLDER) and not isinstance(item, Engine):
            name = module.removeprefix(_ENGINES_FOLDER).partition(".")[0]
            if name in ENGINES:
                yield name


def layer_table(net: Net, times: LayerTimes, layouts: Sequence[str]) -> list[str]:
    """Return the table of all layers in the order of the net, and a last line with sums and records a second.

    Times are means. GFLOP/s are those of multiplications and additions in products of matrices, both passes together;
    layers without such have none.
    """
    forward, backward = times.forward_ms.mean(axis=0), times.backward_ms.mean(axis=0)
    whole = float(forward.sum() + backward.sum())
    multiplies = [bool(count) for count in count_multiply_adds(net)]
    flops = [(f + b) * has for f, b, has in zip(*count_flops(net), multiplies, strict=True)]
    texts = [
        (layer.name, layer.type, engine_of(layer), layout)
        for layer, layout in zip(net.layers, layouts, strict=True)
    ]
    figures = zip(forward.tolist(), backward.tolist(), flops, strict=True)
    rows = [(*text, *_numbers(*figure, whole)) for text, figure in zip(texts, figures, strict=True)]
    total = _numbers(float(forward.sum()), float(backward.sum()), sum(flops), whole)
    batch_size = find_batch_size(net)
    rate = (
        f"  {whole:.3f} ms for {batch_size} images: {batch_size / whole * 1e3:.1f} images/s" if whole else ""
    )
    return [*table_lines([_HEADER, *rows, ("total", "", "", "", *total)], _NUM_TEXTS), *filter(None, [rate])]


def _numbers(forward_ms: float, backward_ms: float, flops: float, whole_ms: float) -> tuple[str, ...]:
    ms = forward_ms + backward_ms
    rate = f"{flops / ms / 1e6:.1f}" if flops and ms else "-"
    return f"{forward_ms:.3f}", f"{backward_ms:.3f}", rate, f"{ms / whole_ms if whole_ms else 0:.1%}"
