"""What core/solver/observer.py promises: which calls come when, as a run makes them."""

from __future__ import annotations

import logging

import pytest

from dtrain.dist.communicator import Communicator
from dtrain.dist.single import SingleCommunicator
from tests.core.solver.ranks import SEVERAL, OnRanks
from tests.core.solver.small_runs import NUM_RECORDS, Recorder, SmallRuns, opened


@pytest.mark.parametrize(
    ("batch_size", "iter_size", "epochs"),
    [
        (25, 1, [(0, 0), (4, 1), (8, 2)]),
        (30, 1, [(0, 0), (3, 1), (6, 2), (10, 3)]),  # 3 · 30 < 100 < 4 · 30
        (25, 2, [(0, 0), (2, 1), (4, 2), (6, 3), (8, 4), (10, 5)]),
        (60, 2, [(0, 1), *((i, (120 * i + 119) // 100) for i in range(1, 11))]),  # the later one of two
    ],
)
def test_on_epoch_comes_before_the_iteration_that_reads_an_epochs_first_record(
    runs: SmallRuns,
    caplog: pytest.LogCaptureFixture,
    batch_size: int,
    iter_size: int,
    epochs: list[tuple[int, int]],
) -> None:
    caplog.set_level(logging.INFO)
    path = runs.write(f"iter_size: {iter_size} max_iter: 11", batch_size=batch_size)
    recorder = Recorder()
    with opened(path, SingleCommunicator(), recorder) as solver:
        solver.solve()
    assert recorder.epochs == epochs
    assert [line for line in caplog.messages if line.startswith("Epoch ")] == [
        f'Epoch {epoch} begins at iteration {iteration} ({NUM_RECORDS} records of layer "data")'
        for iteration, epoch in epochs
        if epoch
    ]


def test_on_epoch_counts_the_records_of_all_ranks_and_comes_once_when_resumed(
    runs: SmallRuns, on_ranks: OnRanks
) -> None:
    path = runs.write("max_iter: 9", batch_size=NUM_RECORDS // 4 // SEVERAL)

    def body(communicator: Communicator) -> list[tuple[int, int]]:
        recorder = Recorder()
        with opened(path, communicator, recorder) as solver:
            solver.step(6)
            solver.snapshot()
        with opened(path, communicator, recorder) as solver:
            solver.restore(str(runs.state(6)))
            solver.solve()
        return recorder.epochs

    per_iteration = NUM_RECORDS // 4 // SEVERAL * SEVERAL
    expected = [(epoch * NUM_RECORDS // per_iteration, epoch) for epoch in range(3)]
    assert on_ranks(SEVERAL, body) == [[each for each in expected if each[0] < 9]] * SEVERAL
