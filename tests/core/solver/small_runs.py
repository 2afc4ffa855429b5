"""Small runs: a net of a second's training, its solver file, and what is compared of two such runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtrain.core.arrays import to_host
from dtrain.core.engines import create_engine
from dtrain.core.engines.engine import Promises
from dtrain.core.net.scores import Score
from dtrain.core.snapshots import MonitorState
from dtrain.core.solver.recipe import read_recipe
from dtrain.core.solver.solver import Solver
from dtrain.data.lmdb_writer import write_lmdb
from dtrain.dist.communicator import Communicator
from dtrain.proto import caffe_pb2
from tests.core.solver.ranks import is_first, wait_for_all

Array = NDArray[Any]

NUM_RECORDS, NUM_CLASSES = 100, 4
TEST_BATCH_SIZE = 3
RANDOM_DATA = "crop_size: 6 mirror: true"  # what TRAIN draws anew in each epoch
DROPOUT = 'layer { name: "drop" type: "Dropout" bottom: "h" top: "h" }'
BATCH_NORM = 'layer { name: "bn" type: "BatchNorm" bottom: "h" top: "h" }'

NET = """name: "small"
layer {{ name: "data" type: "Data" top: "data" top: "label" include {{ phase: TRAIN }}
  transform_param {{ scale: 0.01 {transform} }} dtrain_param {{ shuffle: {shuffle} }}
  data_param {{ source: "{database}" backend: LMDB batch_size: {batch_size} }} }}
layer {{ name: "data" type: "Data" top: "data" top: "label" include {{ phase: TEST }}
  transform_param {{ scale: 0.01 {transform} }}
  data_param {{ source: "{database}" backend: LMDB batch_size: {test_batch_size} }} }}
layer {{ name: "conv" type: "Convolution" bottom: "data" top: "h"
  param {{ lr_mult: 1 }} param {{ lr_mult: 2 decay_mult: 0 }}
  convolution_param {{ num_output: 4 kernel_size: 3 weight_filler {{ type: "xavier" }} }} }}
{middle}
layer {{ name: "relu" type: "ReLU" bottom: "h" top: "h" }}
layer {{ name: "ip" type: "InnerProduct" bottom: "h" top: "ip"
  inner_product_param {{ num_output: {num_classes} weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy" include {{ phase: TEST }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }}
{tail}
"""

# What a solver has unless a test gives that field.
SOLVER = {
    "type": '"SGD"',
    "base_lr": "0.05",
    "lr_policy": '"inv" gamma: 0.01 power: 0.75',
    "momentum": "0.9",
    "weight_decay": "0.001",
    "max_iter": "20",
    "random_seed": "3",
    "snapshot_after_train": "false",
}


def write_database(path: Path, corrupt: int | None = None, mislabelled: int | None = None) -> None:
    """Write an LMDB of 8x8 grey images, each of noise with a bright column where its class says.

    corrupt: a record to be cut short. mislabelled: one whose label is the first that is no class.
    """
    random = np.random.default_rng(5)
    values = []
    for index in range(NUM_RECORDS):
        label = index * 7 % NUM_CLASSES
        image = random.integers(0, 120, (8, 8), dtype=np.uint8)
        image[:, 1 + 2 * label] += 120
        if index == mislabelled:
            label = NUM_CLASSES
        datum = caffe_pb2.Datum(channels=1, height=8, width=8, label=label, data=image.tobytes())
        value = datum.SerializeToString()
        values.append(value[: len(value) // 2] if index == corrupt else value)
    write_lmdb(path, ((b"%08d" % index, value) for index, value in enumerate(values)))


@dataclass(frozen=True)
class SmallRuns:
    """Writes solver and net files into `folder`, on a database."""

    folder: Path
    database: str

    def write(
        self,
        solver: str = "",
        *,
        name: str = "run",
        batch_size: int = 8,
        middle: str = "",
        tail: str = "",
        transform: str = "",
        shuffle: bool = False,
        num_classes: int = NUM_CLASSES,
    ) -> str:
        """Write a net and a solver with the fields `solver` beside the default ones; return the solver's path.

        middle: layers that work in place on h. tail: further layers. Snapshots are called NAME_iter_….
        """
        fields = {
            "net": f'"{self.folder / name}.prototxt"',
            "snapshot_prefix": f'"{self.folder / name}"',
            **SOLVER,
        }
        defaults = [f"{field}: {value}\n" for field, value in fields.items() if f"{field}:" not in solver]
        net = NET.format(
            database=self.database,
            batch_size=batch_size,
            test_batch_size=TEST_BATCH_SIZE,
            middle=middle,
            tail=tail,
            transform=transform,
            shuffle=str(shuffle).lower(),
            num_classes=num_classes,
        )
        path = self.folder / f"{name}_solver.prototxt"
        if is_first():
            (self.folder / f"{name}.prototxt").write_text(net)
            path.write_text("".join(defaults) + solver)
        wait_for_all()
        return str(path)

    def state(self, iteration: int, name: str = "run") -> Path:
        """Return the path of a snapshot's .solverstate."""
        return self.folder / f"{name}_iter_{iteration}.solverstate"


@dataclass
class Recorder:
    """An observer that keeps this rank's losses and the tests' scores, and calls back after each iteration."""

    after: Callable[[Solver], None] = lambda solver: None
    losses: list[float] = field(default_factory=list)
    tests: list[tuple[int, int, Sequence[Score]]] = field(default_factory=list)
    snapshots: list[tuple[int, str]] = field(default_factory=list)
    bounds: list[str] = field(default_factory=list)
    epochs: list[tuple[int, int]] = field(default_factory=list)

    def on_start(self, solver: Solver) -> None:
        self.bounds.append(f"start at {solver.iter}")

    def on_epoch(self, solver: Solver, epoch: int) -> None:
        self.epochs.append((solver.iter, epoch))

    def on_iteration(self, solver: Solver) -> None:
        self.losses.append(solver.losses.losses[-1])
        self.after(solver)

    def on_test(self, solver: Solver, net_index: int, scores: Sequence[Score]) -> None:
        self.tests.append((solver.iter, net_index, scores))

    def on_snapshot(self, solver: Solver, path: str) -> None:
        self.snapshots.append((solver.iter, path))

    def on_end(self, solver: Solver) -> None:
        self.bounds.append(f"end at {solver.iter}")


@dataclass
class Outcome:
    """What one rank has at the end of a run.

    next_data and next_label: the batch that it would read next. average: the averaged learned weights. tests: as
    in Recorder.
    """

    iter: int
    params: dict[str, Array]
    history: list[Array]
    smoothed_loss: float
    losses: list[float]
    next_data: Array
    next_label: Array
    average: Array
    monitor: MonitorState
    learning_rate: float
    tests: list[tuple[int, int, Sequence[Score]]]


@contextmanager
def opened(
    path: str, communicator: Communicator, recorder: Recorder | None = None, engine: str = "reference"
) -> Iterator[Solver]:
    """Give the solver of the file `path`, closed at the end."""
    observers = [recorder] if recorder is not None else []
    recipe = read_recipe(path)
    exact = Promises(strict_float32=True, deterministic=True)
    computes = create_engine(engine, recipe.precision, promises=exact)
    solver = Solver(recipe, engine=computes, communicator=communicator, observers=observers)
    try:
        yield solver
    finally:
        solver.close()


def params_of(solver: Solver) -> dict[str, Array]:
    """Return copies of all params, named layer.index."""
    return {
        f"{layer}.{i}": blob.data.copy()
        for layer, blobs in solver.net.params.items()
        for i, blob in enumerate(blobs)
    }


def outcome_of(solver: Solver, recorder: Recorder) -> Outcome:
    """Return what is compared of a run; reads one more batch."""
    params, history = params_of(solver), [to_host(array) for array in solver.updater.history]
    smoothed_loss = solver.smoothed_loss
    with solver.average.shown():
        average = to_host(solver.arena.data)
    for layer in solver.net.reading_layers:
        if not layer.started:
            layer.start()
    solver.net.forward()
    next_data, next_label = (solver.net.blobs[name].data.copy() for name in ("data", "label"))
    return Outcome(
        solver.iter,
        params,
        history,
        smoothed_loss,
        recorder.losses,
        next_data,
        next_label,
        average,
        solver.monitor.state,
        solver.learning_rate,
        recorder.tests,
    )


def solve(
    path: str, start: Callable[[Solver], object] = lambda solver: None, engine: str = "reference"
) -> Callable[[Communicator], Outcome]:
    """Return the body that runs `start` (a restore, say), then solves, and returns the outcome."""

    def body(communicator: Communicator) -> Outcome:
        recorder = Recorder()
        with opened(path, communicator, recorder, engine) as solver:
            start(solver)
            solver.solve()
            return outcome_of(solver, recorder)

    return body


def interleave(outcomes: Sequence[Outcome]) -> tuple[Array, Array]:
    """Return the next records of all ranks in the order of the common stream: (data, labels)."""
    data = np.stack([outcome.next_data for outcome in outcomes], axis=1)
    labels = np.stack([outcome.next_label for outcome in outcomes], axis=1)
    return data.reshape(-1, *data.shape[2:]), labels.reshape(-1)


def assert_same_bits(left: Outcome, right: Outcome) -> None:
    """Assert that two ranks have the same params, history, averages, place, counts and loss, to the last bit."""
    assert left.iter == right.iter
    assert left.monitor == right.monitor
    assert left.learning_rate == right.learning_rate
    np.testing.assert_array_equal(left.average, right.average)
    assert left.params.keys() == right.params.keys()
    for name, values in left.params.items():
        np.testing.assert_array_equal(values, right.params[name], err_msg=name)
    for mine, theirs in zip(left.history, right.history, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert left.smoothed_loss == right.smoothed_loss
    np.testing.assert_array_equal(left.next_data, right.next_data)
    np.testing.assert_array_equal(left.next_label, right.next_label)
