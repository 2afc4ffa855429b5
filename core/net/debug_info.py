"""What `debug_info` logs: how large the values of each layer are, in Caffe's own sentences.

Called around the layers by the net's callbacks, so a net without it pays nothing. Sizes are means of absolute
values on this rank. Follows caffe's net.cpp (ForwardDebugInfo, BackwardDebugInfo, Backward).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtrain.core.net.net import Net

log = logging.getLogger(__name__)


def set_debug_info(net: Net, on: bool) -> None:
    """Let `net` log the sizes of its values in forward and backward from now on, or no longer."""
    callbacks = net.callbacks
    for calls in (callbacks.after_forward, callbacks.after_backward):
        calls[:] = [call for call in calls if not isinstance(getattr(call, "__self__", None), _DebugInfo)]
    if on and log.isEnabledFor(logging.INFO):
        info = _DebugInfo(net)
        callbacks.after_forward.append(info.after_forward)
        callbacks.after_backward.append(info.after_backward)


def mean_size(values: NDArray[Any]) -> float:
    """Return the mean absolute value, 0 of no values."""
    return float(np.abs(values).mean(dtype=np.float64)) if values.size else 0.0


class _DebugInfo:
    def __init__(self, net: Net) -> None:
        self._net = net

    def after_forward(self, i: int) -> None:
        """Log the data of layer i: its tops, then its params."""
        net, where = self._net, f"    [Forward] Layer {self._net.layer_names[i]}"
        for name, blob in zip(net.top_names[i], net.tops[i], strict=True):
            log.info("%s, top blob %s data: %g", where, name, mean_size(blob.read_data()))
        for k, blob in enumerate(net.layers[i].blobs):
            title = net.param_table.of(i, k).name or k
            log.info("%s, param blob %s data: %g", where, title, mean_size(blob.read_data()))

    def after_backward(self, i: int) -> None:
        """Log the diffs that layer i has made; after the last one also the sizes of all params together."""
        net, where = self._net, f"    [Backward] Layer {self._net.layer_names[i]}"
        needs = net.needs[i]
        if needs.layer:
            for name, blob, needed in zip(net.bottom_names[i], net.bottoms[i], needs.bottoms, strict=True):
                if needed:
                    log.info("%s, bottom blob %s diff: %g", where, name, mean_size(blob.read_diff()))
            for k, (blob, needed) in enumerate(zip(net.layers[i].blobs, needs.params, strict=True)):
                if needed:
                    log.info("%s, param blob %d diff: %g", where, k, mean_size(blob.read_diff()))
        if i == 0:
            self._log_norms()

    def _log_norms(self) -> None:
        blobs = [param.blob for param in self._net.learnable_params]
        data = [blob.read_data().astype(np.float64) for blob in blobs]
        diffs = [blob.read_diff().astype(np.float64) for blob in blobs]
        log.info(
            "    [Backward] All net params (data, diff): L1 norm = (%g, %g); L2 norm = (%g, %g)",
            *(_total(arrays, np.abs) for arrays in (data, diffs)),
            *(math.sqrt(_total(arrays, np.square)) for arrays in (data, diffs)),
        )


def _total(arrays: list[NDArray[Any]], size: Callable[[NDArray[Any]], NDArray[Any]]) -> float:
    return float(sum(size(values).sum() for values in arrays))
