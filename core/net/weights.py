"""Weights in and out of a net: which layer of a .caffemodel goes where, and what a net hands to a snapshot.

Follows caffe's net.cpp (CopyTrainedLayersFrom, ToProto): layers are matched by name; a layer that the net does
not have is left out, one that the file does not have keeps what its fillers gave; of several layers of one name
the first counts.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

from numpy.typing import NDArray

from dtrain.core.errors import Problems
from dtrain.core.layers.layer import Layer
from dtrain.core.net.net import Net
from dtrain.core.snapshots import LayerRecord, LayerWeights

log = logging.getLogger(__name__)

MAX_NAMES_LISTED = 8


def copy_weights(net: Net, source: Sequence[LayerWeights], path: str) -> None:
    """Copy the weights of `source`, read from the file `path`, into the layers of the same names in `net`.

    Logs what was copied, what the file lacks and what the net lacks. Raises UserError with every layer whose
    params differ in number or shape.
    """
    problems = Problems()
    by_name = {layer.name: layer for layer in reversed(source)}
    copied, untouched = [], []
    for layer in net.layers:
        weights = by_name.get(layer.name)
        if weights is None or not (weights.blobs or layer.blobs):
            untouched += [layer.name] if layer.blobs else []
        elif _fits(layer, weights, path, problems):
            copied.append((layer, weights))
    problems.raise_if_any()
    for layer, weights in copied:
        for blob, values in zip(layer.blobs, weights.blobs, strict=True):
            blob.write_data()[...] = values.reshape(blob.shape)
    known = set(net.layer_names)
    left = [layer.name for layer in source if layer.blobs and layer.name not in known]
    log.info(
        "Copied the weights of %d layers from %s%s",
        len(copied),
        path,
        _listed("; at their fillers", untouched),
    )
    if left:
        log.info("%s holds layers that this net does not have%s", path, _listed("", left))


def _fits(layer: Layer, weights: LayerWeights, path: str, problems: Problems) -> bool:
    if len(weights.blobs) != len(layer.blobs):
        problems.add(
            f'{path}: layer "{layer.name}" must have {len(layer.blobs)} params as in this net, '
            f"got {len(weights.blobs)}; rename the layer to leave it at its fillers"
        )
        return False
    for i, blob in enumerate(layer.blobs):
        if not weights.has_shape(i, blob.shape):
            problems.add(
                f'{path}: param {i} of layer "{layer.name}" must be {blob.shape} as in this net, '
                f"got {weights.blobs[i].shape}; rename the layer to leave it at its fillers"
            )
            return False
    return True


def _listed(what: str, names: Sequence[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - MAX_NAMES_LISTED} more" if len(names) > MAX_NAMES_LISTED else ""
    return f"{what}: {', '.join(names[:MAX_NAMES_LISTED])}{more}"


def layer_records(net: Net, with_diff: bool = False, copy: bool = False) -> list[LayerRecord]:
    """Return what a .caffemodel keeps of `net`: every layer, splits included, with its blobs.

    copy: whether the arrays are copies, so that training may go on while they are written.
    """
    return [
        LayerRecord(
            node.param,
            _arrays((blob.data for blob in layer.blobs), copy),
            _arrays((blob.diff for blob in layer.blobs), copy) if with_diff else (),
        )
        for node, layer in zip(net.graph.nodes, net.layers, strict=True)
    ]


def _arrays(arrays: Iterable[NDArray[Any]], copy: bool) -> list[NDArray[Any]]:
    return [array.copy() if copy else array for array in arrays]
