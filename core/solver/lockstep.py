"""What keeps the ranks of a run in step: one seed, one recipe, one set of params. All calls are collective."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence

import numpy as np

from dtrain.core.net.arena import Arena
from dtrain.core.net.params import Param
from dtrain.core.solver.loss_window import LossWindow
from dtrain.core.solver.recipe import Recipe
from dtrain.dist.communicator import Communicator


def agree_on_seed(random_seed: int, communicator: Communicator) -> int:
    """Return random_seed if it is given (≥ 0), else one that rank 0 draws."""
    if random_seed >= 0:
        return random_seed
    drawn = np.array([secrets.randbits(32)], np.int64)
    communicator.broadcast(drawn)
    return int(drawn[0])


def digest_of(recipe: Recipe) -> bytes:
    """Return a digest of all that ranks must have in common: the solver's fields and the nets. Not collective."""
    digest = hashlib.sha256()
    for part in (recipe.solver, *(net.graph.to_param() for net in (recipe.train, *recipe.tests))):
        digest.update(part.SerializeToString(deterministic=True))
    return digest.digest()


def broadcast_params(params: Sequence[Param], arena: Arena, communicator: Communicator) -> None:
    """Give every rank the values that `params` have on rank 0: those in `arena` in one go, then the others."""
    communicator.broadcast(arena.update_data())
    in_arena = {id(param) for param in arena.params}
    for param in params:
        if id(param) not in in_arena:
            communicator.broadcast(param.blob.data)


def average_statistics(params: Sequence[Param], communicator: Communicator) -> None:
    """Set running statistics (BatchNorm's), which each rank takes of its own batches, to their mean."""
    if communicator.world_size == 1:
        return
    for param in params:
        if param.is_statistic:
            # In float64 the mean of equal values is that value, also of three.
            param.blob.data[...] = mean_over_ranks(param.blob.data.astype(np.float64), communicator)


def average_losses(losses: LossWindow, communicator: Communicator) -> None:
    """Set the window of losses, which each rank has of its own batches, to the mean over all ranks."""
    losses.restart(mean_over_ranks(np.array(losses.losses), communicator))


def mean_over_ranks(values: np.ndarray, communicator: Communicator) -> np.ndarray:
    """Return the mean of `values` over all ranks."""
    total = values.copy()
    communicator.all_reduce(total)
    return total / communicator.world_size
