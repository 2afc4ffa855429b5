"""Timing of layers with a clock that advances by known steps."""

from __future__ import annotations

from typing import Any

import numpy as np

from dtrain.launcher.layer_times import LayerTimes, time_layers, time_lines


class StepClock:
    """Seconds that only running a layer advances."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class FakeNet:
    """Two layers; forward takes 1 and 2 ms, backward 3 and 4 ms."""

    layer_names = ("conv", "ip")
    layers = (None, None)

    def __init__(self, clock: StepClock) -> None:
        self.clock = clock
        self.order: list[str] = []

    def forward_layer(self, i: int) -> float:
        self.order.append(f"forward {i}")
        self.clock.now += (0.001, 0.002)[i]
        return 0.0

    def backward_layer(self, i: int) -> None:
        self.order.append(f"backward {i}")
        self.clock.now += (0.003, 0.004)[i]

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
