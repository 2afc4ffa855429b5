"""Slices among ranks that are threads: what is whose, and what NCCL is called with; the sums are in
test_nccl_hierarchical.py."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dtrain.dist.nccl_slices import Slices
from dtrain.dist.topology import topology_from_hosts
from tests.dist.fake_cupy import DeviceArray
from tests.played.nccl import NCCL_SUM, TYPES


def make(hosts: list[str], rank: int) -> tuple[Slices, list[tuple[Any, ...]]]:
    """Return the slices of a rank, and the list to which NCCL's calls are added."""
    calls: list[tuple[Any, ...]] = []
    made = SimpleNamespace(
        reduce=lambda *args: calls.append(("reduce", *args)),
        broadcast=lambda *args: calls.append(("broadcast", *args)),
    )
    module = SimpleNamespace(
        groupStart=lambda: calls.append(("start",)),
        groupEnd=lambda: calls.append(("end",)),
        NCCL_SUM=NCCL_SUM,
        NCCL_FLOAT32=TYPES["FLOAT32"],
    )
    cupy = SimpleNamespace(cuda=SimpleNamespace(nccl=module))
    return Slices(cupy, made, SimpleNamespace(ptr=77), topology_from_hosts(hosts, rank)), calls


@pytest.mark.parametrize(
    ("hosts", "owns"),
    [
        (["a", "a", "b", "b"], ["012", "3456", "012", "3456"]),
        (["a", "b", "a", "b"], ["012", "012", "3456", "3456"]),
        (["a", "a", "b"], ["0123456", None, "0123456"]),
        (["a", "b", "b", "a", "b"], ["012", "012", "3456", "3456", None]),
    ],
)
def test_own_of_each_rank_is_the_same_on_hosts_of_any_size(hosts: list[str], owns: list[str | None]) -> None:
    array = np.arange(7)
    for rank, own in enumerate(owns):
        slices, _ = make(hosts, rank)
        assert slices.has_own == (own is not None)
        if own is not None:
            assert slices.own(array).tolist() == [int(digit) for digit in own]
            assert np.shares_memory(slices.own(array), array)


def test_sum_and_hand_out_are_one_group_of_calls_with_a_root_for_each_slice() -> None:
    slices, calls = make(["a", "a", "b", "b"], 1)
    array = np.zeros(5, np.float32).view(DeviceArray)
    first, second, float32 = array.ctypes.data, array.ctypes.data + 8, TYPES["FLOAT32"]
    slices.sum(array)
    assert calls == [
        ("start",),
        ("reduce", first, first, 2, float32, NCCL_SUM, 0, 77),
        ("reduce", second, second, 3, float32, NCCL_SUM, 1, 77),
        ("end",),
    ]
    calls.clear()
    slices.hand_out(array)
    assert calls == [
        ("start",),
        ("broadcast", first, first, 2, float32, 0, 77),
        ("broadcast", second, second, 3, float32, 1, 77),
        ("end",),
    ]


def test_slices_without_elements_are_left_out() -> None:
    slices, calls = make(["a", "a", "b", "b"], 1)
    slices.sum(np.zeros(1, np.float32).view(DeviceArray))
    assert [call[3:] for call in calls[1:-1]] == [(1, TYPES["FLOAT32"], NCCL_SUM, 1, 77)]


def test_rank_that_is_alone_on_its_host_calls_nothing() -> None:
    slices, calls = make(["a", "b", "b"], 0)
    slices.sum(np.zeros(3, np.float32).view(DeviceArray))
    slices.hand_out(np.zeros(3, np.float32).view(DeviceArray))
    assert calls == []
