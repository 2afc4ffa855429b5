"""The check of memory: a CPU has none, a GPU's is found when one computes."""

from __future__ import annotations

import pytest

from dtrain.launcher.gpu_memory import GpuMemory
from dtrain.launcher.memory_check import MemoryCheck, make_memory_check
from tests.core.net_builder import make_net
from tests.launcher.simulation.nets import DATA, dims


def test_memory_check_of_a_cpu_says_nothing() -> None:
    memory = make_memory_check(False)
    assert type(memory) is MemoryCheck
    assert memory.check([make_net(DATA.format(data=dims(8, 16), target=dims(8, 32)))]) == []
    with pytest.raises(MemoryError), memory.named():
        raise MemoryError


def test_memory_check_of_a_gpu_is_its_own() -> None:
    assert type(make_memory_check(True)) is GpuMemory
