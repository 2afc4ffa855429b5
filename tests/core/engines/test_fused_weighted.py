"""The order in which a gradient passes what comes behind an operation; numbers are in the engines' own tests."""

from __future__ import annotations

from typing import Any

import pytest

from dtrain.core.blob import Blob
from dtrain.core.engines.fused_weighted import FusedWeightedBase
from dtrain.core.engines.operations import Wanted

X, WEIGHT, ADDED, Y = (Blob() for _ in range(4))
NAMES = {id(X): "x", id(WEIGHT): "weight", id(ADDED): "added", id(Y): "y"}


class Played(FusedWeightedBase):
    """Notes the calls."""

    def __init__(self, relu: bool) -> None:
        self.operation = self
        self.relu = relu
        self.calls: list[str] = []

    def pass_on(self, y: Blob, target: Blob) -> None:
        self.calls.append(f"{NAMES[id(y)]} to {NAMES[id(target)]}")


class Operation:
    """An operation whose backward notes whose diff it is given."""

    def __init__(self, calls: list[str]) -> None:
        self.calls = calls

    def forward(self, *blobs: Any) -> None:
        self.calls.append(" ".join("-" if blob is None else NAMES[id(blob)] for blob in blobs))

    def backward(self, x: Blob, weight: Blob, bias: None, y: Blob, wanted: Wanted) -> None:
        self.calls.append(f"backward of {NAMES[id(y)]}")


@pytest.mark.parametrize(
    ("relu", "added", "wants_own", "wants_added", "calls"),
    [
        (False, None, True, False, ["backward of y"]),
        (True, None, True, False, ["y to y", "backward of y"]),
        (True, ADDED, True, True, ["y to added", "backward of added"]),
        (False, ADDED, True, True, ["y to added", "backward of added"]),
        (True, ADDED, True, False, ["y to y", "backward of y"]),
        (True, ADDED, False, True, ["y to added"]),
        (True, None, False, False, []),
    ],
)
def test_backward_passes_what_is_behind_once(
    relu: bool, added: Blob | None, wants_own: bool, wants_added: bool, calls: list[str]
) -> None:
    fused = Played(relu)
    fused.operation = Operation(fused.calls)
    fused.backward(X, WEIGHT, None, added, Y, Wanted(wants_own, False, False), wants_added)
    assert fused.calls == calls


@pytest.mark.parametrize(("added", "call"), [(None, "x weight - y"), (ADDED, "x weight - y added")])
def test_forward_hands_over_what_is_added(added: Blob | None, call: str) -> None:
    fused = Played(relu=True)
    fused.operation = Operation(fused.calls)
    fused.forward(X, WEIGHT, None, added, Y)
    assert fused.calls == [call]
