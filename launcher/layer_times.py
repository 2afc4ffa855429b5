"""How long each layer of a net takes, forward and backward, and the table of it in Caffe's lines.

Stands behind the net in the flow prototxt → graph → net → solver → communicator → snapshot: it runs the
net's layers one by one. Follows caffe's tools/caffe.cpp (time).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from dtrain.core.net.net import Net

Clock = Callable[[], float]


@dataclass(frozen=True)
class LayerTimes:
    """Milliseconds of each layer in each iteration. forward_ms, backward_ms: (iterations, layers)."""

    names: tuple[str, ...]
    forward_ms: np.ndarray
    backward_ms: np.ndarray


def time_layers(
    net: Net,
    num_iterations: int,
    on_iteration: Callable[[int, float], None],
    clock: Clock = time.perf_counter,
) -> LayerTimes:
    """Run the net forward and backward `num_iterations` times and return how long each layer took.

    Arguments:
        on_iteration: called after each with its number, from 1, and its milliseconds.
        clock: returns seconds.
    """
    num_layers = len(net.layers)
    forward_ms, backward_ms = np.zeros((2, num_iterations, num_layers))
    for k in range(num_iterations):
        for i in range(num_layers):
            forward_ms[k, i] = _time_ms(clock, net.forward_layer, i)
        for i in reversed(range(num_layers)):
            backward_ms[k, i] = _time_ms(clock, net.backward_layer, i)
        net.clear_param_diffs()
        on_iteration(k + 1, float(forward_ms[k].sum() + backward_ms[k].sum()))
    return LayerTimes(tuple(net.layer_names), forward_ms, backward_ms)


def _time_ms(clock: Clock, run_layer: Callable[[int], object], i: int) -> float:
    began = clock()
    run_layer(i)
    return (clock() - began) * 1e3


def time_lines(times: LayerTimes) -> list[str]:
    """Return Caffe's lines: the mean of each layer with its share of the whole, and the totals."""
    forward, backward = times.forward_ms.mean(axis=0), times.backward_ms.mean(axis=0)
    whole = float(forward.sum() + backward.sum())
    lines = ["Average time per layer: "]
    for name, *passes in zip(times.names, forward, backward, strict=True):
        lines += _layer_lines(name, passes, whole)
    return [
        *lines,
        f"Average Forward pass: {forward.sum():.6g} ms.",
        f"Average Backward pass: {backward.sum():.6g} ms.",
        f"Average Forward-Backward: {whole:.6g} ms.",
        f"Total Time: {whole * len(times.forward_ms):.6g} ms.",
    ]


def _layer_lines(name: str, passes_ms: Sequence[float], whole_ms: float) -> list[str]:
    words = ("forward", "backward")
    return [
        f"{name:>10}\t{word}: {ms:.6g} ms. ({ms / whole_ms if whole_ms else 0:.1%})"
        for word, ms in zip(words, passes_ms, strict=True)
    ]
