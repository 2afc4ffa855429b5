from __future__ import annotations

from pathlib import Path

import pytest

from dtrain.core.graph.net_recipe import NetRecipe, read_net
from tests.core.net_builder import TEST, TRAIN

NET = """name: "{name}"
{state}
layer {{ name: "data" type: "DummyData" top: "data" dummy_data_param {{ shape {{ dim: 1 }} }} }}
layer {{ name: "train" type: "TanH" bottom: "data" top: "train" include {{ phase: TRAIN }} }}
layer {{ name: "test" type: "TanH" bottom: "data" top: "test" include {{ phase: TEST }} }}
layer {{ name: "deep" type: "TanH" bottom: "data" top: "deep" include {{ min_level: 1 }} }}
layer {{ name: "a" type: "TanH" bottom: "data" top: "a" include {{ stage: "a" }} }}
layer {{ name: "b" type: "TanH" bottom: "data" top: "b" include {{ stage: "b" }} }}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("n1.prototxt").write_text(NET.format(name="n1", state=""))


def describe(net: NetRecipe) -> str:
    """Return "name: layers that are in", without data and splits."""
    names = [node.name for node in net.graph.nodes if not node.inserted and node.name != "data"]
    return f"{net.graph.name}: {' '.join(names)}"


@pytest.mark.parametrize(
    ("phase", "level", "stages", "expected"),
    [
        (TRAIN, 0, (), "n1: train"),
        (TEST, 0, (), "n1: test"),
        (TEST, 1, ("a", "b"), "n1: test deep a b"),
    ],
)
def test_read_net_in_a_state_has_the_layers_that_are_in(
    phase: int, level: int, stages: tuple[str, ...], expected: str
) -> None:
    net = read_net("n1.prototxt", phase, level=level, stages=stages)
    assert describe(net) == expected
    assert net.graph.state.phase == phase


def test_read_net_of_the_caller_s_level_and_phase_override_the_file_s() -> None:
    Path("own.prototxt").write_text(
        NET.format(name="own", state='state { phase: TRAIN level: 5 stage: "a" }')
    )
    assert describe(read_net("own.prototxt", TEST)) == "own: test a"
