"""The nets of a run: one to train and those to test it, and the weights that they start from."""

from __future__ import annotations

from collections.abc import Sequence

from dtrain.core.engines import Engine
from dtrain.core.errors import Problems, UserError
from dtrain.core.graph.net_recipe import NetRecipe
from dtrain.core.net.building import build_net
from dtrain.core.net.net import Net
from dtrain.core.net.params import Param
from dtrain.core.net.weights import copy_weights
from dtrain.core.snapshots import load_weights
from dtrain.core.solver.recipe import Recipe
from dtrain.data.loader import Deal
from dtrain.data.sampler import Shard
from dtrain.dist.activity import Activity
from dtrain.dist.communicator import Communicator
from dtrain.dist.guard import on_rank_0


def make_nets(
    recipe: Recipe, engine: Engine, communicator: Communicator, seed: int, activity: Activity
) -> tuple[Net, list[Net]]:
    """Return the train net and the test nets, whose params are the train net's where it has them.

    Raises UserError with the mistakes of all of them.
    """
    shard = Shard(communicator.rank, communicator.world_size)
    test_shard = Shard(0, 1) if recipe.solver.dtrain_param.test_on_rank_0 else shard
    plans: list[tuple[NetRecipe, Deal, Shard]] = [(recipe.train, "records", shard)]
    plans += [(test, "batches", test_shard) for test in recipe.tests]
    problems, nets = Problems(), []
    for plan, deal, share in plans:
        with problems.collected():
            net = build_net(
                plan,
                engine,
                share,
                seed=seed,
                deal=deal,
                activity=activity,
                communicator=communicator if deal == "records" else None,
            )
            nets.append(net)
    problems.raise_if_any()
    train, *tests = nets
    for test in tests:
        test.share_params_with(train)
    return train, tests


def params_of_tests_alone(train: Net, tests: Sequence[Net]) -> list[Param]:
    """Return the params that test nets have in layers which the train net lacks."""
    known = set(train.params)
    return [param for net in tests for param in net.learnable_params if param.layer_name not in known]


def load_into(train: Net, tests: Sequence[Net], paths: Sequence[str], communicator: Communicator) -> None:
    """Copy the weights of .caffemodel files into the train net, and into test nets that have params of their own.

    Rank 0 reads them; the params of test nets are then broadcast, the train net's are left to the caller.
    Collective. Raises UserError for a file that is damaged or of another net.
    """
    own = [net for net in tests if params_of_tests_alone(train, [net])]

    def read() -> None:
        for path in paths:
            weights = load_weights(path)
            for net in (train, *own):
                copy_weights(net, weights, path)

    on_rank_0(communicator, read, (UserError,))
    for param in params_of_tests_alone(train, tests):
        communicator.broadcast(param.blob.data)
