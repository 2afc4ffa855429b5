"""Exactness, with all that a run may draw, keep and count at once: after a resume, and on other numbers of ranks.

The runs of test_resume.py go through the options one by one; here they meet, on every source of records.
"""

from __future__ import annotations

import numpy as np
import pytest

from dtrain.core.solver.solver import Solver
from dtrain.core.solver.update_rules import UPDATE_RULES
from dtrain.dist.threads import run_ranks
from tests.core.solver.numbered_records import (
    NUM_RECORDS,
    SOURCES,
    NumberedRuns,
    Way,
    follow,
    stream_of,
)
from tests.core.solver.ranks import SEVERAL, UNDER_MPIRUN, WORLD_SIZES, OnRanks
from tests.core.solver.small_runs import DROPOUT, assert_same_bits, solve

# Momentum where the type has it.
TYPES = {
    "SGD": "momentum: 0.9 base_lr: 0.05",
    "Nesterov": "momentum: 0.9 base_lr: 0.05",
    "AdaGrad": "momentum: 0 base_lr: 0.02",
    "RMSProp": "momentum: 0 base_lr: 0.001",
    "AdaDelta": "momentum: 0.95 base_lr: 1 delta: 1e-6",
    "Adam": "momentum: 0.9 base_lr: 0.001",
    "AdamW": "momentum: 0.9 base_lr: 0.001",
    "LARS": "momentum: 0.9",
    "LAMB": "momentum: 0.9 base_lr: 0.01",
}
OF_THE_TYPE = {"LARS": "trust_coefficient: 0.1"}
GLOBAL_BATCH_SIZE = 8

# Each type on each source, and each of them on each number of ranks, but not all three with one another.
SIZES = (1, *WORLD_SIZES)
TABLE = [
    (name, source, SIZES[(i + k) % len(SIZES)])
    for i, name in enumerate(TYPES)
    for k, source in enumerate(SOURCES)
]
if UNDER_MPIRUN:  # a few, each type and each source among them
    TABLE = [(name, SOURCES[i % len(SOURCES)], SEVERAL) for i, name in enumerate(TYPES)]


def all_at_once(name: str) -> str:
    """Return the fields of a solver of the type `name` that does 6 iterations and may be resumed after 3."""
    return f"""type: "{name}" {TYPES[name]} max_iter: 6 snapshot: 3 iter_size: 2 average_loss: 5 clip_gradients: 0.5
        dtrain_param {{ ema_decay: 0.75 {OF_THE_TYPE.get(name, "")} }}"""


def test_exactness_is_looked_at_for_every_solver_type() -> None:
    assert sorted(TYPES) == list(UPDATE_RULES)


@pytest.mark.parametrize(("name", "source", "world_size"), TABLE)
def test_restore_with_all_options_at_once_goes_on_bit_for_bit(
    numbered: NumberedRuns, name: str, source: str, world_size: int, on_ranks: OnRanks
) -> None:
    solver = all_at_once(name)
    path = numbered.write(source, solver, middle=DROPOUT)
    undisturbed = on_ranks(world_size, solve(path))
    resumed = on_ranks(world_size, solve(path, lambda solver: solver.restore(numbered.state(3))))
    for mine, theirs in zip(resumed, undisturbed, strict=True):
        assert mine.losses == theirs.losses[3:]
        assert any(np.any(array) for array in theirs.history)
        assert_same_bits(mine, theirs)


def go_on_and_back(solver: Solver, snapshot: str) -> None:
    """Take up `snapshot` after 2 iterations that leave their own traces."""
    solver.step(2)
    solver.restore(snapshot)


@pytest.mark.parametrize("world_size", [1, *WORLD_SIZES])
@pytest.mark.parametrize(
    "fields",
    [
        "bucket_bytes: 256",
        "wire_precision: FLOAT16 bucket_bytes: 256",
        "wire_precision: BFLOAT16",
        "ordered_sums: true",
        "stale_gradients: true bucket_bytes: 256",
    ],
)
def test_restore_goes_on_bit_for_bit_however_gradients_travel(
    numbered: NumberedRuns, fields: str, world_size: int, on_ranks: OnRanks
) -> None:
    solver = f"max_iter: 6 snapshot: 3 test_interval: 2 test_iter: 2 dtrain_param {{ {fields} }}"
    path = numbered.write("LMDB", solver, middle=DROPOUT)
    undisturbed = on_ranks(world_size, solve(path))
    resumed = on_ranks(world_size, solve(path, lambda solver: go_on_and_back(solver, numbered.state(3))))
    for mine, theirs in zip(resumed, undisturbed, strict=True):
        assert mine.losses[-3:] == theirs.losses[3:]
        assert mine.tests[-1:] == theirs.tests[-1:]
        assert_same_bits(mine, theirs)


def assert_same_params(got: list[Way], expected: list[dict[str, np.ndarray]]) -> None:
    """Assert that all ranks have the expected params after each iteration, within 1e-5."""
    for way in got:
        assert len(way.params) == len(expected)
        for mine, theirs in zip(way.params, expected, strict=True):
            for key, values in theirs.items():
                np.testing.assert_allclose(mine[key], values, rtol=1e-5, atol=1e-5, err_msg=key)


@pytest.mark.parametrize(
    ("name", "source"), [(name, SOURCES[i % 3]) for i, name in enumerate(TYPES)], ids=str
)
def test_restore_of_4_ranks_on_2_and_1_reads_the_same_and_takes_the_same_way(
    numbered: NumberedRuns, name: str, source: str
) -> None:
    solver = all_at_once(name)
    undisturbed = run_ranks(4, follow(numbered.write(source, solver, batch_size=GLOBAL_BATCH_SIZE // 4)))
    stream = stream_of(undisturbed)
    assert len(stream) == 6 * 2 * GLOBAL_BATCH_SIZE  # over the end of three epochs
    for num_ranks in (2, 1):
        batch_size = GLOBAL_BATCH_SIZE // num_ranks
        path = numbered.write(source, solver, name=f"on{num_ranks}", batch_size=batch_size)
        resumed = run_ranks(num_ranks, follow(path, lambda solver: solver.restore(numbered.state(3))))
        assert stream_of(resumed) == stream[len(stream) // 2 :]
        assert_same_params(resumed, undisturbed[0].params[3:])


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("shuffle", [False, True], ids=["in file order", "shuffled"])
def test_solve_on_1_to_4_ranks_reads_the_same_records_in_each_iteration(
    numbered: NumberedRuns, source: str, shuffle: bool
) -> None:
    iterations = 5
    streams = []
    for num_ranks in (1, 2, 3, 4):
        path = numbered.write(
            source, f"max_iter: {iterations} iter_size: 2", batch_size=12 // num_ranks, shuffle=shuffle
        )
        streams.append(stream_of(run_ranks(num_ranks, follow(path))))
    num_read = iterations * 2 * 12
    epochs = np.reshape(streams[0], (num_read // NUM_RECORDS, NUM_RECORDS)).tolist()
    assert all(sorted(epoch) == list(range(NUM_RECORDS)) for epoch in epochs)
    orders = {tuple(epoch) for epoch in epochs}
    assert orders == {tuple(range(NUM_RECORDS))} if not shuffle else len(orders) == len(epochs)
    assert streams[1:] == streams[:1] * 3
