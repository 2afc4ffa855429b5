"""Predictions of growing clusters: what a node's cores do to its ranks, and efficiency by hand."""

from __future__ import annotations

import pytest

from dtrain.launcher.simulation.cluster import Cluster, clusters_up_to
from dtrain.launcher.simulation.collectives import ALGORITHMS, Network
from dtrain.launcher.simulation.links import FREE, KNOWN_LINKS, Link
from dtrain.launcher.simulation.prediction import Machine, predict, predict_iteration
from tests.launcher.simulation.small_work import make_small_work

UNHURRIED = Link(0.0, 100.0)  # 100 bytes a second


@pytest.mark.parametrize(
    ("num_ranks", "stretch"),
    [(1, 1.0), (2, 1.5 * 1.1), (4, 1.5 * 2.2), (8, 1.5 * 4.4)],  # reading adds a tenth
)
def test_stretch_shares_cores_among_computing_and_reading(num_ranks: int, stretch: float) -> None:
    costs = make_small_work(reading_s=2.1).costs
    machine = Machine(Network(FREE, FREE), cores=2, slowdown=1.5)
    assert machine.stretch(costs, num_ranks) == pytest.approx(stretch)


@pytest.mark.parametrize("num_ranks", [1, 8])
def test_stretch_where_each_rank_has_its_own_is_none(num_ranks: int) -> None:
    assert Machine(Network(FREE, FREE)).stretch(make_small_work().costs, num_ranks) == 1.0


def test_predict_iteration_on_crowded_cores_carries_slower_too() -> None:
    machine = Machine(Network(FREE, UNHURRIED), "ring", cores=2, overlaps=False)
    iteration = predict_iteration(make_small_work(), machine, Cluster(1, 4))
    assert iteration.communication_s == pytest.approx(2 * 2 * 3 / 4 * 400 / 100)
    assert iteration.total_s == pytest.approx(2 * 21 + 12)


def test_predict_of_a_ring_gives_efficiency_and_images_by_hand() -> None:
    machine = Machine(Network(UNHURRIED, UNHURRIED), "ring")
    alone, two = predict(make_small_work(), machine, [Cluster(1, 1), Cluster(2, 1)])
    assert (alone.iteration.total_s, alone.efficiency, alone.images_per_s) == (21, 1, 8 / 21)
    assert alone.algorithms == ("none",)
    assert two.iteration.total_s == pytest.approx(24)  # as two ranks send S/2 twice: S / B
    assert two.efficiency == pytest.approx(21 / 24)
    assert two.images_per_s == pytest.approx(16 / 24)
    assert two.algorithms == ("ring",)


def test_predict_on_free_links_is_fully_efficient_up_to_4096_ranks() -> None:
    predictions = predict(make_small_work(), Machine(Network(FREE, FREE)), clusters_up_to(Cluster(512, 8)))
    assert predictions[-1].cluster.world_size == 4096
    assert {prediction.efficiency for prediction in predictions} == {1.0}
    assert {prediction.iteration.hidden_share for prediction in predictions} == {1.0}


@pytest.mark.parametrize("algorithm", [None, *ALGORITHMS])
@pytest.mark.parametrize("name", KNOWN_LINKS)
def test_predict_never_gets_faster_by_more_ranks(name: str, algorithm: str | None) -> None:
    work = make_small_work([1e-3] * 3, [2e-3] * 3, [(2, 10**6), (0, 10**8)])
    machine = Machine(Network(KNOWN_LINKS[name].link, KNOWN_LINKS["nvlink4"].link), algorithm)
    predictions = predict(work, machine, clusters_up_to(Cluster(512, 8)))
    times = [prediction.iteration.total_s for prediction in predictions]
    assert times == sorted(times)
    assert all(0 < prediction.efficiency <= 1 for prediction in predictions)
