"""Padding layers of 2013, folded into the convolution or pooling that reads them.

The first half of the upgrade of V0 nets. Follows caffe's upgrade_proto.cpp (UpgradeV0PaddingLayers).
"""

from __future__ import annotations

import logging
from dataclasses import replace

from dtrain.core.errors import Problems, UserError
from dtrain.core.graph.upgrade.lines import move_layers
from dtrain.core.graph.upgrade.step import NetDocument
from dtrain.core.prototxt import Path
from dtrain.proto import caffe_pb2

log = logging.getLogger(__name__)

Shell = caffe_pb2.V1LayerParameter
"""What holds a V0 layer: its bottoms, its tops and the layer."""

PADDING = "padding"
_CAN_PAD = ("conv", "pool")


def fold_padding(document: NetDocument) -> NetDocument:
    """Return a V0 net without its padding layers: who reads one gets its pad and its bottom.

    Raises UserError where a padding layer is read by a layer that can't pad, or has several bottoms or tops.
    """
    net = document.message
    problems = Problems()
    folded = caffe_pb2.NetParameter()
    folded.CopyFrom(net)
    sources = _find_sources(net)
    for i, source in sources.items():
        reader, padding = folded.layers[i], net.layers[source]
        where = document.where("layers", i)
        with problems.collected(f'{where}: layer "{reader.layer.name}": '):
            _check_pair(reader, padding)
            if reader.layer.pad:
                log.warning(
                    '%s: layer "%s": its pad of %d is replaced by that of padding layer "%s", as in Caffe',
                    *(where, reader.layer.name, reader.layer.pad, padding.layer.name),
                )
            reader.layer.pad = padding.layer.pad
            reader.bottom[0] = padding.bottom[0]
    problems.raise_if_any()
    kept = [i for i, shell in enumerate(net.layers) if shell.layer.type != PADDING]
    layers = [folded.layers[i] for i in kept]
    folded.ClearField("layers")
    folded.layers.extend(layers)
    return replace(document, message=folded, lines=_move(document, kept, sources))


def _find_sources(net: caffe_pb2.NetParameter) -> dict[int, int]:
    """Return, for each layer that reads a padding layer, that layer's index."""
    sources: dict[int, int] = {}
    producers: dict[str, int] = {}
    for i, shell in enumerate(net.layers):
        for bottom in shell.bottom:
            source = producers.get(bottom)
            if source is not None and net.layers[source].layer.type == PADDING:
                sources[i] = source
        producers.update(dict.fromkeys(shell.top, i))
    return sources


def _check_pair(reader: Shell, padding: Shell) -> None:
    if reader.layer.type not in _CAN_PAD:
        raise UserError(
            f'only {" and ".join(_CAN_PAD)} can read a padding layer, got "{reader.layer.type}", which reads '
            f'"{padding.layer.name}"'
        )
    for what, names in (
        ("its bottoms", reader.bottom),
        (f'the bottoms of padding layer "{padding.layer.name}"', padding.bottom),
        (f'the tops of padding layer "{padding.layer.name}"', padding.top),
    ):
        if len(names) != 1:
            raise UserError(f"{what} must be one, got {len(names)}: {', '.join(names) or 'none'}")


def _move(document: NetDocument, kept: list[int], sources: dict[int, int]) -> dict[Path, int]:
    places = {old: new for new, old in enumerate(kept)}

    def move(index: int, inside: Path) -> Path | None:
        return ("layers", places[index], *inside) if index in places else None

    lines = move_layers(document.lines, "layers", move)
    for reader, padding in sources.items():
        line = document.lines.get(("layers", padding, "layer", "pad"))
        if line:
            lines["layers", places[reader], "layer", "pad"] = line
    return lines
