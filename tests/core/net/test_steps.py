from __future__ import annotations

from collections.abc import Sequence

from dtrain.core.engines import create_engine
from dtrain.core.engines.engine import Step
from dtrain.core.engines.reference.engine import ReferenceEngine
from dtrain.core.net.fusion import Group
from dtrain.core.net.steps import find_steps
from tests.core.net_builder import inputs, make_net

NET = (
    inputs(x=(2, 3, 4, 4), t=(2, 3, 4, 4))
    + 'layer { name: "norm" type: "BatchNorm" bottom: "x" top: "n" }'
    + 'layer { name: "scale" type: "Scale" bottom: "n" top: "n" }'
    + 'layer { name: "sum" type: "Eltwise" bottom: "n" bottom: "t" top: "s" }'
    + 'layer { name: "loss" type: "EuclideanLoss" bottom: "s" bottom: "t" top: "loss" }'
)


class Listener(ReferenceEngine):
    """Keeps what it hears."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[list[Step]] = []

    def plan(self, steps: Sequence[Step]) -> None:
        self.heard.append(list(steps))


def test_find_steps_of_layers_are_in_their_order_with_their_blobs() -> None:
    net = make_net(NET)
    steps = find_steps(net.layers, net.bottoms, net.tops, {})
    assert [step.runs for step in steps] == net.layers
    assert [list(step.bottoms) for step in steps] == net.bottoms
    assert [list(step.tops) for step in steps] == net.tops


def test_find_steps_of_a_group_are_one_with_what_comes_from_outside() -> None:
    net = make_net(NET)
    first = net.layer_names.index("norm")
    fused = make_net(NET).layers[first]  # stands for what does the work of three
    group = Group(first, first + 2, fused, ((first, 0), (first + 2, 1)))  # type: ignore[arg-type]
    steps = find_steps(net.layers, net.bottoms, net.tops, dict.fromkeys(range(first, first + 3), group))
    assert len(steps) == len(net.layers) - 2
    assert steps[first].runs is fused
    assert [id(blob) for blob in steps[first].bottoms] == [
        id(net.blobs[name]) for name in ("x", "t_t_0_split_0")
    ]
    assert list(steps[first].tops) == [net.blobs["s"]]


def test_net_tells_its_engine_what_will_run_once_and_again_when_that_changes() -> None:
    engine = Listener()
    net = make_net(NET, engine=engine)
    assert [[step.runs for step in steps] for steps in engine.heard] == [net.layers]
    net.forward()
    net.backward()
    assert len(engine.heard) == 1
    net.fuse()
    net.reshape()
    assert len(engine.heard) == 3


def test_plan_of_an_engine_that_has_none_changes_nothing() -> None:
    engine = create_engine("reference")
    net = make_net(NET, engine=engine)
    operation = net.layers[net.layer_names.index("norm")]
    before = dict(vars(operation))
    engine.plan(find_steps(net.layers, net.bottoms, net.tops, net.groups))
    assert dict(vars(operation)) == before
