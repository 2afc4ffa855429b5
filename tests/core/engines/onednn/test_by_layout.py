from __future__ import annotations

from typing import Any

import pytest

from dtrain.core.engines.engine import NotOffered
from dtrain.core.engines.onednn.by_layout import ByLayout
from dtrain.core.tensor import HOST, Memory

SHAPE = (1, 20, 2, 2)


class Named(ByLayout[str]):
    """Makes names, of some memories only."""

    def __init__(self, bench: Any, offered: list[Memory], otherwise: Memory = HOST) -> None:
        super().__init__(bench.engine, SHAPE, otherwise)
        self.offered = offered
        self.num_made = 0

    def make(self, memory: Memory) -> str:
        if memory not in self.offered:
            raise NotOffered("in that layout")
        self.num_made += 1
        return f"{memory.name} {self.num_made}"


def test_for_data_makes_one_for_each_layout_of_x(bench: Any) -> None:
    blocked = bench.memory("blocked", SHAPE)
    named = Named(bench, [HOST, blocked])
    x = bench.blob(bench.normal(*SHAPE), "blocked")
    assert [named.for_data(x) for _ in range(2)] == ["onednn 1"] * 2
    x.update_data()
    assert named.for_data(x) == "host 2"


def test_for_data_in_a_layout_without_fast_code_goes_elsewhere(bench: Any) -> None:
    blocked, last = bench.memory("blocked", SHAPE), bench.memory("channels last", SHAPE)
    named = Named(bench, [last], otherwise=last)
    assert [named.made_for(memory) for memory in (blocked, HOST, last)] == ["onednn 1"] * 3


def test_made_for_with_fast_code_nowhere_is_not_offered(bench: Any) -> None:
    with pytest.raises(NotOffered, match="in that layout"):
        Named(bench, []).made_for(bench.memory("blocked", SHAPE))
