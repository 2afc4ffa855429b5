"""Measuring links and passes: exact fits of made-up times, and real measurements on ranks that are threads."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from dtrain.dist.communicator import Communicator
from dtrain.dist.threads import run_ranks
from dtrain.launcher.simulation.calibration import (
    fit_ring,
    measure_all_reduce,
    measure_passes_together,
    on_rank_0,
)
from dtrain.launcher.simulation.collectives import ring
from dtrain.launcher.simulation.links import Link
from tests.launcher.simulation.nets import DATA, build, dims, inner_product, loss

SIZES = (4096, 65536, 1048576)


@pytest.mark.parametrize("num_ranks", [2, 4, 7])
@pytest.mark.parametrize("link", [Link(5e-6, 25e9), Link(0.0, 1e9)])
def test_fit_ring_of_times_that_a_ring_takes_finds_its_link(link: Link, num_ranks: int) -> None:
    found = fit_ring(SIZES, [ring(size, num_ranks, link) for size in SIZES], num_ranks)
    assert found.latency_s == pytest.approx(link.latency_s, abs=1e-12)
    assert found.bytes_per_s == pytest.approx(link.bytes_per_s)


def test_fit_ring_of_times_that_grow_faster_than_sizes_has_no_latency() -> None:
    found = fit_ring([1, 10, 100], [0.1, 2.0, 40.0], 2)
    assert found.latency_s == 0
    assert 1 / 0.4 <= found.bytes_per_s <= 1 / 0.1  # S / B on two ranks


def test_fit_ring_of_times_that_fall_has_no_end_to_its_bandwidth() -> None:
    found = fit_ring([1, 10, 100], [3.0, 2.0, 1.0], 2)
    assert found.bytes_per_s == float("inf")
    assert 1.0 / 2 <= found.latency_s <= 3.0 / 2


def test_on_rank_0_runs_there_alone_before_any_goes_on() -> None:
    ran: list[int] = []

    def body(communicator: Communicator) -> tuple[str | None, list[int]]:
        def action() -> str:
            ran.append(communicator.rank)
            return "result"

        return on_rank_0(communicator, action), list(ran)

    assert run_ranks(3, body) == [("result", [0]), (None, [0]), (None, [0])]


def test_measure_all_reduce_gives_all_ranks_the_same_times() -> None:
    first, second = run_ranks(2, lambda communicator: measure_all_reduce(communicator, (4096, 8192)))
    assert first == second
    assert len(first) == 2
    assert min(first) > 0


def test_measure_passes_together_waits_for_the_slower_rank(tmp_path: Path) -> None:
    text = DATA.format(data=dims(2, 3), target=dims(2, 2)) + inner_product("ip", "data", 2) + loss("ip")
    (tmp_path / "0").mkdir()
    (tmp_path / "1").mkdir()
    delay_s = 0.02

    def body(communicator: Communicator) -> float:
        net, _ = build(tmp_path / str(communicator.rank), text)
        if communicator.rank == 1:
            net.callbacks.before_backward.append(lambda index: threading.Event().wait(delay_s / 3))
        return measure_passes_together(net, communicator, 3)

    assert min(run_ranks(2, body)) >= delay_s * 0.9  # of three layers
