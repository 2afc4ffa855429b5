"""How long each layer of a net takes, forward and backward, and the table of it in Caffe's lines.

Stands behind the net in the flow prototxt → graph → net → solver → communicator → snapshot: it runs the
net's layers one by one. Follows caffe's tools/caffe.cpp (time).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from dtrain.core.net.net import Net

Clock = Callable[[], float]


@dataclass(frozen=True)
class LayerTimes:
    """Milliseconds of each layer in each iteration. forward_ms, backward_ms: (iterations, layers).

    again_ms: those of backward_ms in which layers ran forward again before that layer's backward; none by default.
    """

    names: tuple[str, ...]
    forward_ms: np.ndarray
    backward_ms: np.ndarray
    again_ms: np.ndarray = field(default_factory=lambda: np.zeros((1, 1)))


def time_layers(
    net: Net,
    num_iterations: int,
    on_iteration: Callable[[int, float], None],
    clock: Clock = time.perf_counter,
) -> LayerTimes:
    """Run the net forward and backward `num_iterations` times and return how long each layer took.

    What a net that shares memory does beside its layers counts as theirs: it gives memory back, and may recompute.

    Arguments:
        on_iteration: called after each with its number, from 1, and its milliseconds.
        clock: returns seconds.
    """
    num_layers = len(net.layers)
    callbacks, wait = net.callbacks, net.context.engine.synchronize
    forward_ms, backward_ms, again_ms = np.zeros((3, num_iterations, num_layers))
    for k in range(num_iterations):
        for i in range(num_layers):
            forward_ms[k, i] = _time_ms(clock, (net.forward_layer, *callbacks.done_forward), i, wait)
        for i in reversed(range(num_layers)):
            if callbacks.before_backward:
                again_ms[k, i] = _time_ms(clock, callbacks.before_backward, i, wait)
            backward_ms[k, i] = (
                _time_ms(clock, (net.backward_layer, *callbacks.done_backward), i, wait) + again_ms[k, i]
            )
        net.clear_param_diffs()
        on_iteration(k + 1, float(forward_ms[k].sum() + backward_ms[k].sum()))
    return LayerTimes(tuple(net.layer_names), forward_ms, backward_ms, again_ms)


def _time_ms(
    clock: Clock, calls: Sequence[Callable[[int], object]], i: int, wait: Callable[[], object]
) -> float:
    began = clock()
    for call in calls:
        call(i)
    wait()
    return (clock() - began) * 1e3


def again_line(times: LayerTimes) -> str:
    """Return the line on what it costs that layers run forward again; "" if none do."""
    again, backward = times.again_ms.mean(axis=0), times.backward_ms.mean(axis=0)
    if not again.any():
        return ""
    whole = float(times.forward_ms.mean(axis=0).sum() + backward.sum())
    return (
        f"  recomputing: {again.sum():.3f} ms of it, {again.sum() / whole:.1%}, for layers that run forward again;"
        " in bwd ms of the layer that waits for them"
    )


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
