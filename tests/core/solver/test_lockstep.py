from __future__ import annotations

import numpy as np
import pytest

from dtrain.core.net.arena import Arena
from dtrain.core.net.params import trainable
from dtrain.core.solver.lockstep import (
    agree_on_seed,
    average_losses,
    average_statistics,
    broadcast_params,
    digest_of,
    mean_over_ranks,
)
from dtrain.core.solver.loss_window import LossWindow
from dtrain.core.solver.recipe import read_recipe
from dtrain.dist.communicator import Communicator
from tests.core.net_builder import inputs, make_net
from tests.core.solver.ranks import UNDER_MPIRUN, WORLD_SIZES, OnRanks
from tests.core.solver.small_runs import SmallRuns

ALL_SIZES = [1, *WORLD_SIZES]
# ip has a frozen weight and a learned bias, bn three statistics: 5 params, one of them in the arena
NET = (
    inputs(x=(2, 3))
    + """
    layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y" param { lr_mult: 0 }
      inner_product_param { num_output: 4 } }
    layer { name: "bn" type: "BatchNorm" bottom: "y" top: "z" }"""
)


def params_of_rank(communicator: Communicator) -> tuple[list[list[float]], Arena]:
    """Return a net's params, all filled with rank + 1, and their arena."""
    net = make_net(NET)
    arena = Arena(trainable(net.learnable_params))
    for param in net.learnable_params:
        param.blob.data[...] = communicator.rank + 1
    return net.learnable_params, arena  # type: ignore[return-value]


@pytest.mark.parametrize("world_size", ALL_SIZES)
def test_agree_on_seed_keeps_a_given_one_and_shares_a_drawn_one(world_size: int, on_ranks: OnRanks) -> None:
    assert on_ranks(world_size, lambda communicator: agree_on_seed(7, communicator)) == [7] * world_size
    assert on_ranks(world_size, lambda communicator: agree_on_seed(0, communicator)) == [0] * world_size
    drawn = [on_ranks(world_size, lambda communicator: agree_on_seed(-1, communicator)) for _ in range(2)]
    assert [len(set(seeds)) for seeds in drawn] == [1, 1]
    assert drawn[0] != drawn[1]
    assert min(drawn[0]) >= 0


@pytest.mark.parametrize("world_size", ALL_SIZES)
def test_broadcast_params_gives_every_rank_all_params_of_rank_0(world_size: int, on_ranks: OnRanks) -> None:
    def body(communicator: Communicator) -> list[set[float]]:
        params, arena = params_of_rank(communicator)
        broadcast_params(params, arena, communicator)
        return [set(param.blob.data.ravel().tolist()) for param in params]

    assert on_ranks(world_size, body) == [[{1.0}] * 5] * world_size


@pytest.mark.parametrize("world_size", ALL_SIZES)
def test_average_statistics_means_running_statistics_and_nothing_else(
    world_size: int, on_ranks: OnRanks
) -> None:
    def body(communicator: Communicator) -> list[set[float]]:
        params, _ = params_of_rank(communicator)
        average_statistics(params, communicator)
        return [set(param.blob.data.ravel().tolist()) for param in params]

    mean = (world_size + 1) / 2  # of 1 … world_size
    assert on_ranks(world_size, body) == [
        [{rank + 1.0}, {rank + 1.0}, {mean}, {mean}, {mean}] for rank in range(world_size)
    ]


@pytest.mark.parametrize("world_size", ALL_SIZES if UNDER_MPIRUN else [1, 2, 3, 4, 7])
def test_average_statistics_leaves_equal_ones_as_they_are(world_size: int, on_ranks: OnRanks) -> None:
    values = np.random.default_rng(1).standard_normal(4).astype(np.float32)

    def body(communicator: Communicator) -> list[float]:
        params, _ = params_of_rank(communicator)
        params[2].blob.data[...] = values
        average_statistics(params, communicator)
        return params[2].blob.data.tolist()

    assert on_ranks(world_size, body) == [values.tolist()] * world_size


@pytest.mark.parametrize("world_size", ALL_SIZES)
def test_mean_over_ranks_is_their_mean_and_leaves_its_argument_alone(
    world_size: int, on_ranks: OnRanks
) -> None:
    def body(communicator: Communicator) -> tuple[list[float], list[float]]:
        values = np.array([communicator.rank, 2.0 * communicator.rank, 5.0])
        return mean_over_ranks(values, communicator).tolist(), values.tolist()

    mean = (world_size - 1) / 2
    expected = [([mean, 2 * mean, 5.0], [rank, 2.0 * rank, 5.0]) for rank in range(world_size)]
    assert on_ranks(world_size, body) == expected


@pytest.mark.parametrize("world_size", ALL_SIZES)
def test_average_losses_gives_every_rank_the_means(world_size: int, on_ranks: OnRanks) -> None:
    def body(communicator: Communicator) -> list[float]:
        losses = LossWindow(3)
        losses.restart([communicator.rank, 5.0])
        average_losses(losses, communicator)
        losses.add(7.0)
        return losses.losses

    assert on_ranks(world_size, body) == [[(world_size - 1) / 2, 5.0, 7.0]] * world_size


def test_digest_of_a_recipe_changes_with_its_solver_and_its_nets(runs: SmallRuns) -> None:
    variants = [
        {},
        {},
        {"solver": "max_iter: 21"},
        {"batch_size": 9},
        {"shuffle": True},
        {"solver": "test_iter: 1 test_interval: 1"},
        {"solver": "test_iter: 1 test_interval: 1 test_state { level: 1 }"},
    ]
    digests = [digest_of(read_recipe(runs.write(**variant))) for variant in variants]  # type: ignore[arg-type]
    assert digests[0] == digests[1]
    assert len(set(digests)) == len(variants) - 1
