"""Where the time of an iteration on a GPU goes: by layer, in the update, and by kernel.

gpu_profile.py NAME BATCH_SIZE [bf16]

Layers: medians of CUDA's events around what a layer gives the GPU, while the host runs ahead behind a kernel that
only waits; beside them how long the host took to give it, which counts where it is more and there is no graph.
Kernels: as CUPTI saw them in whole iterations, by way of PyTorch's profiler, if that is installed.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from gpu_nets import make_gpu_solver, make_steps, seconds_on_gpu
from gpu_played import IS_PLAYED, play_if_asked
from made_up import net_text
from nets import CONSTANT

from dtrain.core.net.net import Net
from dtrain.core.solver.solver import Solver

NUM_TO_WARM_UP, NUM_ITERATIONS, NUM_PASSES = 5, 20, 5
NUM_SHOWN = 25
WAITING_CYCLES = 400_000_000  # 0.2 s: what the host needs to give the GPU a pass
WAIT = r"""
extern "C" __global__ void wait(long long cycles) {
    long long began = clock64();
    while (clock64() - began < cycles) {}
}
"""


class Clock:
    """Times what is given to the GPU, without waiting for it in between."""

    def __init__(self, cupy: Any) -> None:
        self._cuda = cupy.cuda
        self._wait = None if IS_PLAYED else cupy.RawKernel(WAIT, "wait")
        self._cycles = [int(WAITING_CYCLES)]
        self._spans: list[tuple[Any, Any, Any, float]] = []

    def hold(self) -> None:
        """Let the GPU wait, so that the host gets ahead."""
        if self._wait is not None:
            self._wait((1,), (1,), tuple(self._cycles))

    def time(self, key: Any, run: Callable[[], object]) -> None:
        """Run something between two events."""
        began, ended = self._cuda.Event(), self._cuda.Event()
        began.record()
        started = time.perf_counter()
        run()
        host_ms = 1000 * (time.perf_counter() - started)
        ended.record()
        self._spans.append((key, began, ended, host_ms))

    def read(self) -> dict[Any, tuple[float, float]]:
        """Return the medians of ms on the GPU and of the host by key, and forget them."""
        if self._spans:
            self._spans[-1][2].synchronize()
        found: dict[Any, list[tuple[float, float]]] = {}
        for key, began, ended, host_ms in self._spans:
            gpu_ms = float(self._cuda.get_elapsed_time(began, ended))
            found.setdefault(key, []).append((gpu_ms, host_ms))
        self._spans = []
        return {
            key: (statistics.median(row[0] for row in rows), statistics.median(row[1] for row in rows))
            for key, rows in found.items()
        }


def time_layers(net: Net, clock: Clock) -> dict[Any, tuple[float, float]]:
    """Return the ms of each layer's forward (index, 0) and backward (index, 1), on the GPU and of the host."""
    for _ in range(NUM_PASSES):
        clock.hold()
        for index in range(len(net.layers)):
            clock.time((index, 0), lambda i=index: net.forward_layer(i))  # type: ignore[misc]
        clock.hold()
        for index in reversed(range(len(net.layers))):
            clock.time((index, 1), lambda i=index: net.backward_layer(i))  # type: ignore[misc]
    return clock.read()


def print_layers(solver: Solver, clock: Clock, iteration_ms: float) -> None:
    """Print the dearest layers, and what update and all layers of a type take."""
    net, times = solver.net, time_layers(solver.net, clock)
    for _ in range(NUM_PASSES):
        clock.hold()
        clock.time("update", solver.apply_update)
    update_ms = clock.read()["update"]
    by_type: dict[str, float] = {}
    for (index, _), (gpu_ms, _) in times.items():
        by_type[net.layers[index].type] = by_type.get(net.layers[index].type, 0.0) + gpu_ms
    total_ms = sum(by_type.values())
    host_ms = sum(host for _, host in times.values())
    print(
        f"iteration {iteration_ms:.2f} ms; layers one by one {total_ms:.2f} on the GPU, {host_ms:.2f} of the host;"
        f" update {update_ms[0]:.2f} and {update_ms[1]:.2f}"
    )
    dearest = sorted(by_type.items(), key=lambda item: -item[1])
    print("by type: " + ", ".join(f"{kind} {ms:.2f} ({ms / total_ms:.0%})" for kind, ms in dearest))
    print(f"{'layer':<44}{'forward':>9}{'host':>7}{'backward':>10}{'host':>7}")
    order = sorted(range(len(net.layers)), key=lambda i: -times[i, 0][0] - times[i, 1][0])
    for index in order[:NUM_SHOWN]:
        (forward, host), (backward, host_back) = times[index, 0], times[index, 1]
        name = f"{net.layer_names[index]} ({net.layers[index].type})"
        print(f"{name:<44}{forward:>9.3f}{host:>7.3f}{backward:>10.3f}{host_back:>7.3f}")


def print_kernels(run: Callable[[], object], num_iterations: int) -> None:
    """Print which kernels an iteration of `run` takes, how many, and how long they run."""
    try:
        from torch.profiler import ProfilerActivity, profile
    except ImportError:
        print("kernels: not counted, PyTorch is not installed")
        return
    import torch

    if not torch.cuda.is_available():
        print("kernels: not counted, PyTorch sees no GPU")
        return
    torch.cuda.init()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        run()
        torch.cuda.synchronize()
    rows = [row for row in profiler.key_averages() if row.self_device_time_total > 0]
    rows.sort(key=lambda row: -row.self_device_time_total)
    total_ms = sum(row.self_device_time_total for row in rows) / 1000 / num_iterations
    launches = sum(row.count for row in rows) / num_iterations
    print(f"kernels and copies: {launches:.0f} launches an iteration, {total_ms:.2f} ms on the GPU")
    for row in rows[:NUM_SHOWN]:
        ms = row.self_device_time_total / 1000 / num_iterations
        print(f"{ms:>9.3f} ms {row.count / num_iterations:>7.1f} x  {row.key[:90]}")


def main() -> None:
    """Print where the time goes."""
    play_if_asked()
    name, batch_size = sys.argv[1], int(sys.argv[2])
    precision = "BF16" if "bf16" in sys.argv[3:] else "FLOAT32"
    text = net_text(name, batch_size, CONSTANT)
    solver = make_gpu_solver(text, precision)
    steps = make_steps(solver)
    steps(NUM_TO_WARM_UP)
    seconds = seconds_on_gpu(solver.engine, lambda: steps(NUM_ITERATIONS))
    iteration_ms = 1000 * seconds / NUM_ITERATIONS
    print(f"{name}, {batch_size} images, {precision}: {batch_size / iteration_ms * 1000:,.0f} images/s")
    print_kernels(lambda: steps(NUM_TO_WARM_UP), NUM_TO_WARM_UP)
    solver.close()
    plain = make_gpu_solver(text, precision, captures=False)
    make_steps(plain)(NUM_TO_WARM_UP)
    print_layers(plain, Clock(plain.engine.xp), iteration_ms)
    plain.close()


if __name__ == "__main__":
    main()
