from __future__ import annotations

from pathlib import Path

import pytest

from dtrain.core.errors import UserError
from dtrain.core.graph.net_recipe import NetRecipe, build_net_recipe, read_net
from dtrain.core.graph.upgrade import upgrade_net
from dtrain.core.prototxt import parse_text
from dtrain.proto import caffe_pb2
from tests.core.net_builder import TEST, TRAIN

NET = """{state}
layer {{ name: "data" type: "Input" top: "data" }}
layer {{ name: "train" type: "TanH" bottom: "data" top: "train" include {{ phase: TRAIN }} }}
layer {{ name: "test" type: "TanH" bottom: "data" top: "test" include {{ phase: TEST }} }}
layer {{ name: "deep" type: "TanH" bottom: "data" top: "deep" include {{ min_level: 1 }} }}
layer {{ name: "a" type: "TanH" bottom: "data" top: "a" include {{ stage: "a" }} }}
layer {{ name: "b" type: "TanH" bottom: "data" top: "b" include {{ stage: "b" }} }}
"""


def names(net: NetRecipe) -> list[str]:
    """Return the layers that are in, without data and splits."""
    return [node.name for node in net.graph.nodes if not node.inserted and node.name != "data"]


@pytest.mark.parametrize(
    ("own", "phase", "level", "stages", "expected"),
    [
        ("", TRAIN, 0, (), ["train"]),
        ("", TEST, 0, (), ["test"]),
        ("", TEST, 1, ("a", "b"), ["test", "deep", "a", "b"]),
        # the caller's phase and level override the file's, stages add up
        ('state { phase: TRAIN level: 5 stage: "a" }', TEST, 0, ("b",), ["test", "a", "b"]),
    ],
)
def test_read_net_in_a_state_has_the_layers_that_are_in(
    tmp_path: Path, own: str, phase: int, level: int, stages: tuple[str, ...], expected: list[str]
) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(NET.format(state=own))
    net = read_net(str(path), phase, level=level, stages=stages)
    assert names(net) == expected
    assert net.graph.state.phase == phase
    assert net.document.where("layer", 1) == f"{path}:3"


def test_read_net_upgrades_old_fields(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text('input: "x" input_dim: [1, 2, 3, 4]')
    assert [node.param.type for node in read_net(str(path), TEST).graph.nodes] == ["Input"]


def test_read_net_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none.prototxt: no such file"):
        read_net(str(tmp_path / "none.prototxt"), TEST)


@pytest.mark.parametrize(
    ("own", "given", "expected"),
    [
        ("", {}, ["train"]),
        ("state { phase: TEST }", {}, ["test"]),
        ("state { phase: TEST level: 1 }", {"phase": TRAIN}, ["train", "deep"]),
        ('state { level: 1 stage: "a" }', {"level": 0, "stage": ["b"]}, ["train", "a", "b"]),
    ],
)
def test_build_net_recipe_puts_phase_file_and_caller_above_each_other(
    own: str, given: dict[str, object], expected: list[str]
) -> None:
    document = upgrade_net(parse_text(NET.format(state=own), caffe_pb2.NetParameter))
    state = caffe_pb2.NetState(**given)  # type: ignore[arg-type]
    assert names(build_net_recipe(document, TRAIN, state)) == expected
