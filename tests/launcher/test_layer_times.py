"""Timing of layers with a clock that advances by known steps."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from dtrain.core.net.callbacks import Callbacks
from dtrain.launcher.layer_times import LayerTimes, again_line, time_layers, time_lines


class StepClock:
    """Seconds that only running a layer advances."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class FakeNet:
    """Two layers; forward takes 1 and 2 ms, backward 3 and 4 ms, which a GPU does behind the caller."""

    layer_names = ("conv", "ip")
    layers = (None, None)

    def __init__(self, clock: StepClock) -> None:
        self.clock = clock
        self.callbacks = Callbacks()
        self.order: list[str] = []
        self.context = SimpleNamespace(engine=self)
        self.given = 0.0

    def forward_layer(self, i: int) -> float:
        self.order.append(f"forward {i}")
        self.given += (0.001, 0.002)[i]
        return 0.0

    def backward_layer(self, i: int) -> None:
        self.order.append(f"backward {i}")
        self.given += (0.003, 0.004)[i]

    def synchronize(self) -> None:
        self.clock.now, self.given = self.clock.now + self.given, 0.0

    def clear_param_diffs(self) -> None:
        self.clock.now += 1.0  # not counted


def test_time_layers_of_known_times_measures_them() -> None:
    clock = StepClock()
    net: Any = FakeNet(clock)
    iterations: list[tuple[int, float]] = []
    times = time_layers(net, 2, lambda k, ms: iterations.append((k, round(ms, 6))), clock)
    np.testing.assert_allclose(times.forward_ms, [[1, 2], [1, 2]])
    np.testing.assert_allclose(times.backward_ms, [[3, 4], [3, 4]])
    assert iterations == [(1, 10.0), (2, 10.0)]
    assert net.order == ["forward 0", "forward 1", "backward 1", "backward 0"] * 2


def test_time_layers_of_a_net_that_recomputes_counts_it_to_backward() -> None:
    clock = StepClock()
    net: Any = FakeNet(clock)

    def run_again(i: int) -> None:
        clock.now += (0.0, 0.005)[i]

    def give_back(i: int) -> None:
        clock.now += 0.0005

    net.callbacks.before_backward.append(run_again)
    net.callbacks.done_forward.append(give_back)
    net.callbacks.done_backward.append(give_back)
    times = time_layers(net, 1, lambda k, ms: None, clock)
    np.testing.assert_allclose(times.forward_ms, [[1.5, 2.5]])
    np.testing.assert_allclose(times.backward_ms, [[3.5, 9.5]])
    np.testing.assert_allclose(times.again_ms, [[0, 5]])
    assert again_line(times) == (
        "  recomputing: 5.000 ms of it, 29.4%, for layers that run forward again; in bwd ms of the layer that waits "
        "for them"
    )


def test_again_line_of_a_net_that_keeps_all_is_empty() -> None:
    assert again_line(LayerTimes(("ip",), np.ones((2, 1)), np.ones((2, 1)))) == ""


def test_time_lines_are_caffes_with_shares() -> None:
    times = LayerTimes(("conv", "ip"), np.array([[1.0, 2.0], [3.0, 2.0]]), np.array([[3.0, 3.0], [3.0, 3.0]]))
    assert time_lines(times) == [
        "Average time per layer: ",
        "      conv\tforward: 2 ms. (20.0%)",
        "      conv\tbackward: 3 ms. (30.0%)",
        "        ip\tforward: 2 ms. (20.0%)",
        "        ip\tbackward: 3 ms. (30.0%)",
        "Average Forward pass: 4 ms.",
        "Average Backward pass: 6 ms.",
        "Average Forward-Backward: 10 ms.",
        "Total Time: 20 ms.",
    ]
