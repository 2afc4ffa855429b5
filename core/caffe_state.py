"""What Caffe keeps for each thread: the mode, the random seed, and how many solvers train together.

Scripts set these through pycaffe's functions, nets and solvers that are made later in the same thread take them,
and Python layers ask for them. Follows caffe's common.cpp.
"""

from __future__ import annotations

import secrets
import threading

from dtrain.core.tensor import Memory

_SEED_RANGE = 1 << 63  # what a solver's random_seed can hold
_SEED_STEP = 0x9E3779B97F4A7C15  # odd, so that no two nets of a seed meet


class CaffeState(threading.local):
    """The state of the calling thread; another thread sees one of its own.

    solver_count: how many solvers share the training data; None until somebody has said so. solver_rank: which
    of them this one is, from 0. multiprocess: whether they are processes (kept for whoever asks). is_mode_gpu:
    whether nets that are made from now on compute on a GPU. device: which one; None: nobody has said. gpu_memory:
    where the values of those nets are; None: there were none yet.
    """

    def __init__(self) -> None:
        self.solver_count: int | None = None
        self.solver_rank = 0
        self.multiprocess = False
        self.is_mode_gpu = False
        self.device: int | None = None
        self.gpu_memory: Memory | None = None
        self._seed: int | None = None
        self._num_nets = 0

    def set_seed(self, seed: int) -> None:
        """Draw all later seeds from `seed`."""
        self._seed, self._num_nets = seed, 0

    @property
    def has_seed(self) -> bool:
        """Whether set_seed was called."""
        return self._seed is not None

    def next_seed(self) -> int:
        """Return a net's seed, 0 to 2^63 − 1: another for each net, the same again after the same set_seed.

        Without set_seed it is drawn at random, as Caffe does.
        """
        if self._seed is None:
            return secrets.randbelow(_SEED_RANGE)
        seed = (self._seed + self._num_nets * _SEED_STEP) % _SEED_RANGE
        self._num_nets += 1
        return seed


STATE = CaffeState()
