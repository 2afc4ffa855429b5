from __future__ import annotations

import sys
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import pytest

from dtrain.core.engines.engine import Step
from dtrain.core.engines.onednn.concat import Concat
from dtrain.core.engines.onednn.convolution import Convolution
from dtrain.core.engines.onednn.layout_costs import BLOCKED, LAST
from dtrain.core.engines.onednn.layouts import Layout
from dtrain.core.engines.onednn.net_layouts import plan_layouts
from dtrain.core.net.net import Net
from dtrain.core.net.steps import find_steps
from dtrain.core.python_layers.base import Layer as UsersLayer
from dtrain.core.tensor import Storage
from tests.core.net_builder import inputs, make_net

ODD = 24  # channels of which blocks would be filled up with a third more


def conv(name: str, bottom: str, num_output: int, kernel: int, more: str = "") -> str:
    return f"""layer {{ name: "{name}" type: "Convolution" bottom: "{bottom}" top: "{name}" convolution_param {{
        num_output: {num_output} kernel_size: {kernel} pad: {kernel // 2} {more}
        weight_filler {{ type: "gaussian" std: 0.1 }} }} }}"""


def layer(kind: str, name: str, *bottoms: str, top: str = "", more: str = "") -> str:
    shown = " ".join(f'bottom: "{bottom}"' for bottom in bottoms)
    return f'layer {{ name: "{name}" type: "{kind}" {shown} top: "{top or name}" {more} }}'


def layouts_of(net: Net) -> dict[str, str]:
    """Return the layout in which each convolution and concatenation works, by its layer's name."""
    found = {}
    for each in net.layers:
        for operation in (*getattr(each, "operations", ()), getattr(each, "operation", None)):
            if isinstance(operation, Convolution | Concat):
                found[each.name] = operation.layout
    return found


WIDE = inputs(x=(2, 3, 28, 28))
IN_BETWEEN = (
    WIDE
    + conv("first", "x", 64, 3)
    + conv("a", "first", 64, 3)
    + layer("ReLU", "relu", "a", top="a")
    + conv("b", "a", ODD, 3)
    + conv("c", "b", 64, 3)
    + conv("d", "c", 64, 3)
)


def test_convolution_alone_has_the_layout_that_is_best_for_it(onednn: Any) -> None:
    net = make_net(inputs(x=(2, 64, 28, 28)) + conv("b", "x", ODD, 3), engine=onednn)
    assert layouts_of(net) == {"b": LAST}


def test_convolution_of_few_channels_between_wide_ones_has_their_layout(onednn: Any) -> None:
    """Alone it would be faster with channels last, but not by the time of reorders of a and c, data and diff."""
    assert layouts_of(make_net(IN_BETWEEN, engine=onednn)) == dict.fromkeys(("first", *"abcd"), BLOCKED)


def test_convolutions_of_few_channels_one_after_the_other_keep_channels_last(onednn: Any) -> None:
    """LeNet: pooling follows the convolution before it, and inner products read plain values either way."""
    text = (
        inputs(x=(64, 1, 28, 28))
        + conv("c1", "x", 20, 5)
        + layer("Pooling", "p1", "c1", more="pooling_param { kernel_size: 2 stride: 2 }")
        + conv("c2", "p1", 50, 5)
        + layer("InnerProduct", "ip", "c2", more="inner_product_param { num_output: 10 }")
    )
    assert layouts_of(make_net(text, engine=onednn)) == {"c1": LAST, "c2": LAST}


BRANCHES = (
    WIDE
    + conv("a", "x", 64, 3)
    + conv("wide", "a", 96, 3)
    + conv("reduce", "a", 16, 1)
    + conv("odd", "reduce", ODD + 8, 5)
    + layer("Concat", "cat", "wide", "odd")
    + conv("next", "cat", 64, 3)
)


def test_concat_has_the_layout_of_the_branches_and_of_what_is_behind(onednn: Any) -> None:
    assert set(layouts_of(make_net(BRANCHES, engine=onednn)).values()) == {BLOCKED}


def moves(net: Net) -> list[tuple[str, str]]:
    """Run an iteration after one to warm up; return which values of blobs were moved, and where to."""
    seen: list[tuple[Storage, str]] = []
    make_valid = Storage.make_valid

    def note(storage: Storage, memory: Any) -> None:
        if storage.valid and not storage.is_valid(memory):
            seen.append((storage, memory.name))
        make_valid(storage, memory)

    for i in range(2):
        with pytest.MonkeyPatch.context() as patch:
            if i:
                patch.setattr(Storage, "make_valid", note)
            net.forward()
            for name in net.outputs:
                net.blobs[name].write_diff()[...] = 1
            net.backward()
    named = [
        (tensor.storage, name)
        for name, blob in net.blobs.items()
        for tensor in (blob.data_tensor, blob.diff_tensor)
    ]
    return [(name, memory) for storage, memory in seen for own, name in named if own is storage]


def test_net_of_strides_sums_and_branches_moves_no_value_between_its_ends(onednn: Any) -> None:
    text = (
        "force_backward: true\n"
        + BRANCHES
        + conv("down", "next", 128, 1, "stride: 2")
        + conv("also", "next", 128, 3, "stride: 2")
        + layer("Eltwise", "sum", "down", "also")
        + conv("last", "sum", ODD, 1)
    )
    net = make_net(text, engine=onednn)
    moved = moves(net)
    assert {name for name, _ in moved} <= {"x", "last"}


@pytest.mark.parametrize("fuses", [False, True])
@pytest.mark.parametrize("text", [IN_BETWEEN, BRANCHES], ids=["chain", "branches"])
def test_plan_changes_no_result(onednn: Any, text: str, fuses: bool) -> None:
    """The same net on the reference engine gives the same values and gradients."""
    nets = [make_net(f"force_backward: true\n{text}", engine=engine) for engine in (None, onednn)]
    x = np.random.default_rng(0).standard_normal(nets[0].blobs["x"].shape)
    for net in nets:
        if fuses:
            net.fuse()
        net.blobs["x"].data[...] = x
        net.forward()
        (top,) = net.outputs
        net.blobs[top].diff[...] = 0.01
        net.backward()
    for name in (*nets[0].outputs, "x"):
        for part in ("data", "diff"):
            expected, actual = (getattr(net.blobs[name], part) for net in nets)
            np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


def test_plan_of_a_fused_net_reaches_what_runs_there(onednn: Any) -> None:
    net = make_net(IN_BETWEEN, engine=onednn)
    net.fuse()
    (group,) = set(net.groups.values())
    assert {net.layer_names[group.first], net.layer_names[group.last]} == {
        "a",
        "relu",
    }  # the others run alone
    chosen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Convolution, "work_in", lambda operation, layout: chosen.append((operation, layout)))
        plan_layouts(find_steps(net.layers, net.bottoms, net.tops, net.groups))
    alone = {id(operation) for each in net.layers for operation in getattr(each, "operations", ())}
    assert {layout for _, layout in chosen} == {BLOCKED}
    assert [id(operation) in alone for operation, _ in chosen] == [True, False, True, True, True]


class Doubling(UsersLayer):
    """Doubles what it sees, and keeps it."""

    seen: ClassVar[list[Any]] = []

    def setup(self, bottom: Any, top: Any) -> None:
        """Need nothing."""

    def reshape(self, bottom: Any, top: Any) -> None:
        """Give the top the bottom's shape."""
        top[0].reshape(*bottom[0].shape)

    def forward(self, bottom: Any, top: Any) -> None:
        """Double the data."""
        self.seen.append(bottom[0].data.copy())
        top[0].data[...] = 2 * bottom[0].data

    def backward(self, top: Any, propagate_down: Any, bottom: Any) -> None:
        """Double the diff."""
        self.seen.append(top[0].diff.copy())
        bottom[0].diff[...] = 2 * top[0].diff


def test_layer_of_python_between_convolutions_sees_plain_values(
    onednn: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("doubling_of_this_test")
    module.Doubling = Doubling  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    python = f'python_param {{ module: "{module.__name__}" layer: "Doubling" }}'
    text = (
        "force_backward: true\n"
        + inputs(x=(2, 32, 6, 6))
        + conv("a", "x", 48, 3)
        + layer("Python", "user", "a", more=python)
        + conv("b", "user", ODD, 3)
    )
    nets = [make_net(text, engine=engine) for engine in (None, onednn)]
    x = np.random.default_rng(0).standard_normal((2, 32, 6, 6))
    seen = []
    for net in nets:
        net.blobs["x"].data[...] = x
        net.forward()
        net.blobs["b"].diff[...] = 1
        net.backward()
        seen.append([*Doubling.seen, net.blobs["x"].diff.copy()])
        Doubling.seen.clear()
    for one, other in zip(*seen, strict=True):
        assert other.shape == one.shape
        np.testing.assert_allclose(other, one, rtol=0, atol=1e-5 * np.abs(one).max())


def test_blob_data_of_a_planned_net_is_plain(onednn: Any) -> None:
    net = make_net(IN_BETWEEN, engine=onednn)
    net.blobs["x"].data[...] = 1
    net.forward()
    b = net.blobs["b"]
    assert any(isinstance(memory, Layout) for memory in b.data_tensor.storage.valid)
    plain = b.data
    assert plain.shape == (2, ODD, 28, 28)
    assert plain.flags.c_contiguous
    np.testing.assert_array_equal(plain[0], plain[1])  # equal images


def test_plan_layouts_of_what_keeps_several_operations_takes_them_as_plain(onednn: Any) -> None:
    """Nothing is known of what it reads where, and nothing is asked of it."""

    class Several:
        def __init__(self, *operations: Any) -> None:
            self.operations = operations

    net = make_net(IN_BETWEEN, engine=onednn)
    (operation,) = net.layers[net.layer_names.index("b")].operations
    assert operation.layout == BLOCKED  # as its neighbours
    operation.work_in(LAST)
    steps = find_steps(net.layers, net.bottoms, net.tops, {})
    blobs = [net.blobs["a"]], [net.blobs["b"]]
    several = Step(Several(operation, operation), *blobs)
    plan_layouts([several if step.tops == blobs[1] else step for step in steps])
    assert operation.layout == LAST
    plan_layouts(steps)
    assert operation.layout == BLOCKED
