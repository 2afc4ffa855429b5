"""Runs a layer of an engine for GPUs once more, after a first run, as a part of an iteration that is captured.

On the devices that are played such a run is refused what a CUDA graph can't have (tests/played/host_traffic.py).
Layers that say why they need the host are refused, all others are not.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest

from dtrain.core.blob import Blob
from dtrain.core.layers import Layer
from tests.core.layers.rig import Array, Rig
from tests.played.cupy import REAL_GPU
from tests.played.host_traffic import HostTraffic, forbid_host

ON_GPUS = ("cupy", "cudnn")


def run_captured(rig: Rig, inputs: Sequence[Array], top_diffs: Sequence[Array], runs_backward: bool) -> bool:
    """Run a rig that has run before, with all values on the device now, and return whether it can be captured.

    A loss's diff, its weight, is on the host, where the net has it.
    """
    layer = rig.layer
    if layer.needs_host and os.environ.get(REAL_GPU):
        return False  # a real one refuses nothing
    for blob in (*rig.bottom, *rig.top, *layer.blobs):
        blob.data_tensor.storage.is_shown = blob.diff_tensor.storage.is_shown = False
    for blob, values in zip(rig.bottom, inputs, strict=True):
        blob.write_data()[...] = values
    for blob in (*rig.bottom, *layer.blobs):
        blob.update_data(layer.memory)
        blob.clear_diff()
    layer.engine.looks_at_values = lambda: False  # type: ignore[method-assign]
    refusal = pytest.raises(HostTraffic) if layer.needs_host else forbid_host()
    with refusal, forbid_host():
        layer.forward(rig.bottom, rig.top)
    if runs_backward and not layer.needs_host:
        _set_diffs(rig.top, top_diffs, layer)
        with forbid_host():
            wanted = [i in rig.differentiable for i in range(len(rig.bottom))]
            layer.backward(rig.top, wanted, rig.bottom)
    return not layer.needs_host


def _set_diffs(top: Sequence[Blob], diffs: Sequence[Array], layer: Layer) -> None:
    for blob, diff in zip(top, diffs, strict=True):
        blob.write_diff()[...] = diff
        if not layer.is_loss:
            blob.update_diff(layer.memory)
