from __future__ import annotations

import itertools

import numpy as np
import pytest

from dtrain.core.random_streams import RandomStreams

NUM_DRAWN = 1000


def drawn(seed: int = 1, name: str = "drop", pass_index: int = 0, rank: int = 0) -> list[float]:
    streams = RandomStreams(seed, rank)
    streams.pass_index = pass_index
    return streams.for_pass(name).random(NUM_DRAWN).tolist()


def test_for_pass_depends_on_seed_name_pass_and_rank_alone() -> None:
    streams = RandomStreams(1)
    streams.for_pass("other").random(7)  # what others draw does not matter
    assert streams.for_pass("drop").random(NUM_DRAWN).tolist() == drawn()
    assert streams.for_pass("drop").random(NUM_DRAWN).tolist() == drawn()


def test_for_pass_of_different_uses_shares_no_number() -> None:
    varied = itertools.product((1, 2), ("drop", "drop2"), (0, 1, 2), (0, 1, 2))
    numbers = [number for use in varied for number in drawn(*use)]
    assert len(set(numbers)) == len(numbers)


def test_generators_of_passes_are_counted_and_those_of_fillers_are_not() -> None:
    streams = RandomStreams(1)
    streams.for_filler("weight")
    assert streams.num_given == 0
    for name in ("drop", "other", "drop"):
        streams.for_pass(name)
    assert streams.num_given == 3


def test_for_filler_is_the_same_on_every_rank_and_in_every_pass() -> None:
    streams = RandomStreams(5, rank=3)
    streams.pass_index = 9
    expected = RandomStreams(5).for_filler("ip:0").random(NUM_DRAWN)
    np.testing.assert_array_equal(streams.for_filler("ip:0").random(NUM_DRAWN), expected)


def test_for_filler_and_for_pass_of_one_name_differ() -> None:
    streams = RandomStreams(5)
    assert streams.for_filler("ip").random() != streams.for_pass("ip").random()


@pytest.mark.parametrize("seed", [0, 2**32, 2**63, 2**64 - 1])
def test_streams_take_any_seed_of_64_bits(seed: int) -> None:
    assert drawn(seed) != drawn(seed ^ 1)


def test_for_pass_is_uniform() -> None:
    numbers = np.array(drawn())
    assert abs(numbers.mean() - 0.5) < 4 * np.sqrt(1 / 12 / NUM_DRAWN)
