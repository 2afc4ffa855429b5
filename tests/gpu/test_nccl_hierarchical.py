"""The way by the host for real: two ranks that say they are on different hosts share a GPU, where NCCL has nothing to
do and copies by pinned memory all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dtrain.dist import nccl_hierarchical
from dtrain.dist.communicator import DTYPES, Communicator
from dtrain.dist.nccl_hierarchical import NcclHierarchicalCommunicator
from dtrain.dist.threads import run_ranks
from tests.dist.device_suite import filled, summed
from tests.dist.played_sums import Between

PIECE_BYTES = 2**16  # so that the arrays are of more pieces than there is room for


def check_sums(communicator: Communicator, cupy: Any) -> None:
    """Have sums of several sizes under way, and a call that blocks among them."""
    for dtype in DTYPES:
        arrays = [cupy.asarray(filled((size,), dtype, communicator.rank)) for size in (1, 900_007, 3000)]
        started = [communicator.start_all_reduce(array) for array in arrays]
        communicator.barrier()
        for array, reduction in zip(arrays, started, strict=True):
            reduction.wait()
            np.testing.assert_array_equal(
                cupy.asnumpy(array), summed(array.shape, dtype, communicator.world_size)
            )


def check_other_calls(communicator: Communicator, cupy: Any) -> None:
    for dtype in DTYPES:
        array = cupy.asarray(filled((5, 7), dtype, communicator.rank))
        for rank, part in enumerate(cupy.asnumpy(communicator.all_gather(array))):
            np.testing.assert_array_equal(part, filled((5, 7), dtype, rank))
        communicator.broadcast(array, root=1)
        np.testing.assert_array_equal(cupy.asnumpy(array), filled((5, 7), dtype, 1))


def check_order(communicator: Communicator, cupy: Any) -> None:
    """Look whether a sum begins behind what the caller's stream has, and the caller's work behind the sum."""
    array = cupy.zeros(1 << 20, np.float32)
    for _ in range(20):
        array += communicator.rank
        communicator.start_all_reduce(array).wait()
        array *= 0.5
    expected = np.float32(0)
    for _ in range(20):
        expected = (expected * 2 + 1) / 2
    assert set(cupy.asnumpy(array).tolist()) == {float(expected)}


def test_ranks_of_two_hosts_are_summed_by_way_of_the_host(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nccl_hierarchical, "PIECE_BYTES", PIECE_BYTES)
    between = Between()

    def body(host: Communicator) -> None:
        communicator = NcclHierarchicalCommunicator(host, device=0, between=between.make)
        for is_ordered in (False, True):
            communicator.ordered_sums = is_ordered
            check_sums(communicator, cupy)
        check_other_calls(communicator, cupy)
        check_order(communicator, cupy)
        communicator.close()

    run_ranks(2, body, hosts=["a", "b"])
    assert between.num_open == 0
