"""The guard over params: ranks that hold different ones are found out, and named.

Every rank applies the same sums to the same params, so these stay equal to the last bit. Where they do not (a
broken memory, a library that computes otherwise on one host, a layer that writes its params), training goes on
but is worth nothing; so digests are compared every check_interval iterations.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtrain.core.net.params import Param
from dtrain.dist.communicator import Communicator
from dtrain.dist.errors import AgreedFailure
from dtrain.dist.topology import Topology

_ROW = 4096
_WEIGHTS = np.random.Generator(np.random.PCG64(0)).integers(0, 2**63, _ROW, np.uint64) * 2 + 1  # odd ones


def check_params_equal(params: Sequence[Param], iteration: int, communicator: Communicator) -> None:
    """Compare `params` over all ranks; running statistics, which each rank has of its own, are left out. Collective.

    Raises AgreedFailure on every rank; names the ranks that differ from most, and the first param that does.
    """
    compared = [param for param in params if not param.is_statistic]
    if communicator.world_size == 1 or not compared:
        return
    own = np.array([digest(param.blob.read_data()) for param in compared], np.int64)
    digests = communicator.all_gather(own)
    if (digests == digests[0]).all():
        return
    raise AgreedFailure(*_describe(digests, compared, iteration, communicator.topology))


def _describe(
    digests: NDArray[np.int64], params: Sequence[Param], iteration: int, topology: Topology
) -> list[str]:
    """Return one sentence for each rank that is not as most are; where no state is most ranks', as rank 0 is."""
    states = Counter(row.tobytes() for row in digests)
    usual, count = states.most_common(1)[0]
    reference = [row.tobytes() for row in digests].index(usual)
    is_most = 2 * count > len(digests)
    problems = []
    for rank in (rank for rank, row in enumerate(digests) if row.tobytes() != usual):
        differing = np.flatnonzero(digests[rank] != digests[reference])
        param = params[int(differing[0])]
        more = f" and {len(differing) - 1} more" if len(differing) > 1 else ""
        others = "the others" if is_most else topology.describe(reference)
        problems.append(
            f"iteration {iteration}: params must be the same on all ranks, {topology.describe(rank)} differs from "
            f'{others} in param {param.title} of layer "{param.layer_name}"{more}; resume from the last snapshot, '
            "and look at that host's memory and libraries"
        )
    return problems


def digest(values: NDArray[Any]) -> int:
    """Return 64 bits that depend on every value; reads `values` once, as fast as memory gives them.

    The words of 8 bytes are summed, each times an odd number of its column among 4,096: one word that differs
    always shows, several but for a chance of about 2⁻⁶⁴.
    """
    data = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
    whole = data.size // 8 * 8
    words = data[:whole].view(np.uint64)
    rows = words.size // _ROW
    sums = words[: rows * _ROW].reshape(rows, _ROW).sum(axis=0, dtype=np.uint64)
    total = int((sums * _WEIGHTS).sum(dtype=np.uint64)) + int(
        (words[rows * _ROW :] * _WEIGHTS[: words.size - rows * _ROW]).sum(dtype=np.uint64)
    )
    total += int.from_bytes(data[whole:].tobytes(), "little") * int(_WEIGHTS[-1])
    return (total + 2**63) % 2**64 - 2**63
