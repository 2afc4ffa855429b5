"""Iterations added up by hand, and bounds that hold for any work."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtrain.launcher.simulation.timeline import simulate
from dtrain.launcher.simulation.work import Bucket, Costs, Work
from tests.launcher.simulation.small_work import make_small_work

SECONDS = st.floats(0, 1e3, allow_subnormal=False)


@st.composite
def works(draw: st.DrawFn) -> Work:
    """Draw a net of up to 8 layers, each with times and perhaps a bucket; there is always one."""
    layers = draw(st.lists(st.tuples(SECONDS, SECONDS, st.integers(0, 10**6)), min_size=1, max_size=8))
    ready = [Bucket(k, size) for k, (_, _, size) in reversed(list(enumerate(layers))) if size]
    buckets = tuple(ready or [Bucket(0, 64)])
    costs = Costs(
        tuple(f for f, _, _ in layers), tuple(b for _, b, _ in layers), draw(SECONDS), draw(SECONDS)
    )
    return Work(
        costs, buckets, draw(st.integers(1, 3)), 1, draw(st.sampled_from([2, 4])), draw(st.booleans())
    )


# Forward ends at 6, the gradients of layer 2 are ready at 12, those of layers 1 and 0 at 21.


def test_simulate_hides_what_travels_during_backward() -> None:
    iteration = simulate(make_small_work(), lambda num_bytes: num_bytes / 100)
    assert iteration.total_s == 21 + 3  # bucket 0 from 12 to 13, bucket 1 from 21 to 24
    assert iteration.compute_s == 21
    assert iteration.communication_s == 4
    assert iteration.hidden_share == pytest.approx(1 / 4)


def test_simulate_carries_one_bucket_after_the_other() -> None:
    iteration = simulate(make_small_work(), lambda num_bytes: num_bytes / 10)
    assert iteration.total_s == 12 + 10 + 30  # bucket 1 waits from 21 to 22


def test_simulate_updates_each_bucket_when_it_is_there() -> None:
    iteration = simulate(make_small_work(update_s=8.0), lambda num_bytes: num_bytes / 100)
    assert iteration.total_s == 24 + 6  # 2 s for bucket 0 from 21 to 23, 6 s for bucket 1 from 24
    assert iteration.compute_s == 29


def test_simulate_with_a_common_norm_updates_when_all_is_there() -> None:
    work = make_small_work(update_s=8.0, waits_for_all=True)
    assert simulate(work, lambda num_bytes: num_bytes / 100).total_s == 24 + 8


def test_simulate_of_several_passes_starts_in_the_last() -> None:
    work = make_small_work(iter_size=3)
    assert simulate(work, lambda num_bytes: num_bytes / 100).total_s == 3 * 21 + 3


def test_simulate_of_halved_values_carries_half_the_bytes() -> None:
    iteration = simulate(make_small_work(wire_bytes=2), lambda num_bytes: num_bytes / 100)
    assert iteration.communication_s == 2


def test_simulate_of_stale_gradients_hides_all_that_an_iteration_has_room_for() -> None:
    work = make_small_work(stale=True)
    assert simulate(work, lambda num_bytes: num_bytes / 100).total_s == 21
    assert simulate(work, lambda num_bytes: num_bytes / 10).total_s == 40


def test_simulate_without_overlap_adds_up() -> None:
    iteration = simulate(make_small_work(update_s=8.0), lambda num_bytes: num_bytes / 100, overlaps=False)
    assert iteration.total_s == 21 + 8 + 4
    assert iteration.hidden_share == 0


def test_simulate_of_slow_reading_waits_for_it() -> None:
    iteration = simulate(make_small_work(reading_s=50.0, iter_size=2), lambda num_bytes: num_bytes / 100)
    assert iteration.total_s == 100
    assert iteration.hidden_share == 1


def test_simulate_stretches_computing_and_not_the_network() -> None:
    iteration = simulate(make_small_work(), lambda num_bytes: num_bytes / 100, stretch=2.0)
    assert iteration.total_s == 42 + 3


@given(works())
def test_simulate_on_a_free_link_hides_all(work: Work) -> None:
    iteration = simulate(work, lambda num_bytes: 0.0)
    assert iteration.hidden_share == 1
    assert iteration.total_s == pytest.approx(iteration.alone_s)


@given(works(), st.floats(1e-6, 1e-3), st.floats(1, 3))
def test_simulate_takes_at_least_either_and_at_most_both(
    work: Work, s_per_byte: float, stretch: float
) -> None:
    iteration = simulate(work, lambda num_bytes: num_bytes * s_per_byte, stretch)
    most = iteration.compute_s + iteration.communication_s
    reading_s = work.iter_size * work.costs.reading_s
    slack = 1 + 1e-9
    assert max(iteration.compute_s, iteration.communication_s, reading_s) <= iteration.total_s * slack
    assert iteration.total_s <= max(most, reading_s) * slack
    assert 0 <= iteration.hidden_share <= slack


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=8), st.floats(1e-9, 1e-6))
def test_simulate_of_endless_computing_leaves_the_last_bucket_in_sight(
    sizes: list[int], s_per_byte: float
) -> None:
    last = len(sizes) - 1
    buckets = [(last - k, size) for k, size in enumerate(sizes)]
    work = make_small_work([1e4] * len(sizes), [1e4] * len(sizes), buckets)
    iteration = simulate(work, lambda num_bytes: num_bytes * s_per_byte)
    assert iteration.total_s - iteration.compute_s == pytest.approx(sizes[-1] * s_per_byte, abs=1e-9)
