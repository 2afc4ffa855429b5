"""Scores: the named values that a net puts out, and the lines in which Caffe logs them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dtrain.core.net.net import Net


class Score(NamedTuple):
    """One value of an output blob. loss_weight: 0 unless the blob counts in the loss."""

    name: str
    value: float
    loss_weight: float


def output_values(net: Net) -> NDArray[np.float64]:
    """Return all values of all output blobs of `net`, outputs in order."""
    values = [net.blobs[name].read_data().reshape(-1) for name in net.outputs]
    return np.concatenate(values).astype(np.float64) if values else np.zeros(0)


def name_values(net: Net, values: Sequence[float] | NDArray[np.float64]) -> list[Score]:
    """Return `values`, which are in the order of output_values, with the names and weights of their blobs."""
    weights = net.blob_loss_weights
    names = [name for name in net.outputs for _ in range(net.blobs[name].count)]
    return [Score(name, float(v), weights[name]) for name, v in zip(names, values, strict=True)]


def output_lines(net_kind: str, scores: Sequence[Score]) -> list[str]:
    """Return Caffe's lines: "    Test net output #0: accuracy = 0.99"."""
    lines = []
    for k, score in enumerate(scores):
        loss = ""
        if score.loss_weight:
            loss = f" (* {score.loss_weight:g} = {score.loss_weight * score.value:g} loss)"
        lines.append(f"    {net_kind} net output #{k}: {score.name} = {score.value:g}{loss}")
    return lines
