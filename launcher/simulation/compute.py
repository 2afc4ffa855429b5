"""Where the seconds of a rank's layers come from: measured here, given in a file, or counted operations.

In a prediction this fills Costs (work.py).
"""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from dtrain.core.errors import Problems, UserError
from dtrain.core.net.net import Net
from dtrain.core.solver.update_rules import UPDATE_RULES
from dtrain.core.solver.update_rules.rule import Step
from dtrain.launcher.flops import count_flops
from dtrain.launcher.layer_times import time_layers
from dtrain.launcher.simulation.work import Costs
from dtrain.proto import caffe_pb2

UPDATE_ROW, READING_ROW = "(update)", "(reading)"
MIN_ITERATIONS, MAX_ITERATIONS = 5, 100
_UPDATE_FLOPS = 8  # a value's share of scaling, decay, momentum and the step
_PIECE_VALUES = 1 << 16
_COLUMNS = ["layer", "forward_ms", "backward_ms"]


def costs_from_flops(net: Net, flops_per_s: float, efficiency: float) -> Costs:
    """Return the seconds of the counted operations at `flops_per_s` times `efficiency` (0 … 1), and no reading."""
    rate = flops_per_s * efficiency
    forward, backward = count_flops(net)
    num_values = sum(param.blob.count for param in net.param_table.with_gradients)
    return Costs(
        tuple(flops / rate for flops in forward),
        tuple(flops / rate for flops in backward),
        _UPDATE_FLOPS * num_values / rate,
    )


def costs_from_file(net: Net, path: str) -> Costs:
    """Return the seconds that a CSV file of layer,forward_ms,backward_ms gives.

    Each layer of the net has a row; those that the net makes by itself (Split) may be left out and then take no time.
    Rows (update) and (reading) may give in forward_ms what updating all params and reading a batch take.
    Raises UserError with all that is wrong.
    """
    rows = _read_rows(path)
    problems = Problems()
    zero = (0.0, 0.0)
    update, reading = rows.pop(UPDATE_ROW, zero), rows.pop(READING_ROW, zero)
    for name, layer in zip(net.layer_names, net.layers, strict=True):
        if name not in rows and layer.type != "Split":
            problems.add(f'{path}: every layer of the net must have a row, layer "{name}" has none')
    for name in sorted(set(rows) - set(net.layer_names)):
        problems.add(f'{path}: layer "{name}" must be one of the net, which has no such layer')
    problems.raise_if_any()
    times = [rows.get(name, zero) for name in net.layer_names]
    return Costs(
        tuple(forward / 1e3 for forward, _ in times),
        tuple(backward / 1e3 for _, backward in times),
        update[0] / 1e3,
        reading[0] / 1e3,
    )


def _read_rows(path: str) -> dict[str, tuple[float, float]]:
    try:
        lines = list(csv.reader(Path(path).read_text(encoding="utf-8").splitlines()))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"--compute: {path} must be a CSV file that can be read: {error}") from error
    if not lines or [cell.strip() for cell in lines[0]] != _COLUMNS:
        raise UserError(f"{path}:1: the first line must be {','.join(_COLUMNS)}")
    problems, rows = Problems(), {}
    for number, line in enumerate(lines[1:], start=2):
        times = [_parse_ms(cell) for cell in line[1:]]
        if len(times) != 2 or None in times or line[0] in rows:
            problems.add(
                f"{path}:{number}: must be a layer and two times in ms, each layer once, got {','.join(line)}"
            )
            continue
        rows[line[0]] = (float(times[0] or 0), float(times[1] or 0))
    problems.raise_if_any()
    return rows


def _parse_ms(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if 0 <= value < float("inf") else None


def measure_costs(net: Net, solver: caffe_pb2.SolverParameter, measured_s: float) -> Costs:
    """Run `net` for about `measured_s` seconds and an update of its params; return what they take."""
    reading_s = measure_reading(net)
    net.forward()
    net.backward()
    first = time_layers(net, 1, lambda number, ms: None)
    num_iterations = iterations_within(measured_s, (first.forward_ms.sum() + first.backward_ms.sum()) / 1e3)
    times = time_layers(net, num_iterations, lambda number, ms: None)
    return Costs(
        tuple(times.forward_ms.mean(axis=0) / 1e3),
        tuple(times.backward_ms.mean(axis=0) / 1e3),
        measure_update(solver, sum(param.blob.count for param in net.param_table.with_gradients)),
        reading_s,
    )


def iterations_within(seconds: float, iteration_s: float) -> int:
    """Return how many iterations take about `seconds`, from MIN_ITERATIONS to MAX_ITERATIONS."""
    return min(max(int(seconds / max(iteration_s, 1e-9)), MIN_ITERATIONS), MAX_ITERATIONS)


def measure_reading(net: Net) -> float:
    """Return the seconds in which the slowest reading layer reads a batch, if nobody else does anything; 0 for none.

    Batches that were ready are not counted.
    """
    slowest_s = 0.0
    for layer in net.reading_layers:
        layer.start()
        num_batches = 4 * MIN_ITERATIONS
        for _ in range(num_batches):  # those that were read ahead meanwhile
            layer.loader.next()
        began = time.perf_counter()
        for _ in range(num_batches):
            layer.loader.next()
        slowest_s = max(slowest_s, (time.perf_counter() - began) / num_batches)
        layer.start()
    return slowest_s


def measure_update(solver: caffe_pb2.SolverParameter, num_values: int) -> float:
    """Return the seconds in which the solver's rule updates `num_values` values, piece by piece if it may.

    Clearing the gradients, scaling and weight decay are in it.
    """
    rule = UPDATE_RULES[solver.type](solver)
    data, diff, *history = np.zeros((2 + rule.num_histories, num_values), np.float32)
    size = _PIECE_VALUES if rule.elementwise else max(num_values, 1)
    starts = range(0, num_values, size)

    def update() -> None:
        diff.fill(0)
        for start in starts:
            piece = slice(start, start + size)
            diff[piece] *= np.float32(0.5)
            diff[piece] += data[piece] * np.float32(solver.weight_decay)
            rule.apply(data[piece], diff[piece], [values[piece] for values in history], Step(0.01, 1))

    return min(_times(update))


def _times(action: Callable[[], None]) -> Iterator[float]:
    """Yield the seconds of each of MIN_ITERATIONS runs after a first one."""
    action()
    for _ in range(MIN_ITERATIONS):
        began = time.perf_counter()
        action()
        yield time.perf_counter() - began
