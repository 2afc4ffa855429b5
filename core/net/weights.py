"""Weights in and out of a net: which layer of a .caffemodel goes where, and what a net hands to a snapshot.

Follows caffe's net.cpp (CopyTrainedLayersFrom, CopyTrainedLayersFromHDF5, ToProto, ToHDF5): layers are matched by
name; a layer that the net does not have is left out, one that the file does not have keeps what its fillers gave.
Of several layers of one name in the net the first gets the weights, of several in the file the last gives them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

from numpy.typing import NDArray

from dtrain.core.errors import Problems
from dtrain.core.net.net import Net
from dtrain.core.snapshots import LayerRecord, LayerWeights

log = logging.getLogger(__name__)

MAX_NAMES_LISTED = 8

_RENAME = "rename the layer to leave it at its fillers"


def copy_weights(net: Net, source: Sequence[LayerWeights], path: str) -> None:
    """Copy the weights of `source`, read from the file `path`, into the layers of the same names in `net`.

    float64 values are rounded to the params' float32. Logs a line each for what was copied (a warning if it is
    nothing), what the net lacks and what the file lacks. Raises UserError with every layer whose params differ in
    number or shape; nothing has changed then.
    """
    problems = Problems()
    targets = {name: i for i, name in reversed(list(enumerate(net.layer_names)))}
    chosen: dict[int, LayerWeights] = {}
    left_out: list[str] = []
    for weights in source:
        target = targets.get(weights.name)
        if target is None:
            left_out += [weights.name] if weights.blobs else []
        elif weights.blobs or net.layers[target].blobs:
            _check_fit(net, target, weights, path, problems)
            chosen[target] = weights
    problems.raise_if_any()
    for target, weights in chosen.items():
        for blob, values in zip(net.layers[target].blobs, weights.blobs, strict=False):
            if values is not None:
                blob.write_data()[...] = values.reshape(blob.shape)
    untouched = [layer.name for i, layer in enumerate(net.layers) if layer.blobs and i not in chosen]
    copied = [net.layer_names[target] for target in chosen]
    _report(path, copied, left_out, untouched)


def _report(path: str, copied: Sequence[str], left_out: Sequence[str], untouched: Sequence[str]) -> None:
    # A file of another net, which the run would go through with as if it were trained.
    level = logging.INFO if copied or not untouched else logging.WARNING
    log.log(level, "Copied the weights of %s from %s%s", _counted(copied), path, _listed(copied))
    if left_out:
        log.info(
            "Left out %s of %s that this net does not have%s", _counted(left_out), path, _listed(left_out)
        )
    if untouched:
        fillers = f"{'its' if len(untouched) == 1 else 'their'} fillers"
        log.info(
            "Left %s at %s that %s does not have%s", _counted(untouched), fillers, path, _listed(untouched)
        )


def _check_fit(net: Net, index: int, weights: LayerWeights, path: str, problems: Problems) -> None:
    """Note the first reason why layer `index` can't take these weights."""
    layer = net.layers[index]
    num_params, num_given = len(layer.blobs), len(weights.blobs)
    if num_given > num_params or (num_given < num_params and not weights.owned_only):
        problems.add(
            f'{path}: layer "{layer.name}" must have {num_params} params as in this net, got {num_given}; '
            f"{_RENAME}"
        )
        return
    for i, blob in enumerate(layer.blobs):
        values = weights.blobs[i] if i < num_given else None
        if values is None and not is_shared(net, index, i):
            problem = "there, since no other layer of this net owns it, got none"
        elif values is not None and not weights.has_shape(i, blob.shape):
            problem = f"{blob.shape} as in this net, got {values.shape}"
        else:
            continue
        problems.add(f'{path}: param {i} of layer "{layer.name}" must be {problem}; {_RENAME}')
        return


def _counted(names: Sequence[str]) -> str:
    return f"{len(names)} layer{'s' * (len(names) != 1)}"


def _listed(names: Sequence[str]) -> str:
    more = ", …" if len(names) > MAX_NAMES_LISTED else ""
    return f": {', '.join(names[:MAX_NAMES_LISTED])}{more}" if names else ""


def is_shared(net: Net, layer_index: int, index: int) -> bool:
    """Return whether another layer, or an earlier param of the layer itself, owns a layer's param."""
    owner = net.param_table.of(layer_index, index)
    return (owner.layer_index, owner.index) != (layer_index, index)


def layer_records(net: Net, with_diff: bool = False, copy: bool = False) -> list[LayerRecord]:
    """Return what a .caffemodel keeps of `net`: every layer, splits included, with its blobs, shared ones too.

    copy: whether the arrays are copies, so that training may go on while they are written.
    """
    return [
        LayerRecord(
            node.param,
            _arrays((blob.data for blob in layer.blobs), copy),
            _arrays((blob.diff for blob in layer.blobs), copy) if with_diff else (),
            frozenset(k for k in range(len(layer.blobs)) if is_shared(net, i, k)),
        )
        for i, (node, layer) in enumerate(zip(net.graph.nodes, net.layers, strict=True))
    ]


def _arrays(arrays: Iterable[NDArray[Any]], copy: bool) -> list[NDArray[Any]]:
    return [array.copy() if copy else array for array in arrays]
