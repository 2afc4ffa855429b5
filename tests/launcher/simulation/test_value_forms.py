"""Forms of values, on ways that are given by hand; those of engines are tried in test_value_sizes.py."""

from __future__ import annotations

import pytest

from dtrain.core.engines.engine import Step
from dtrain.core.net.net import Net
from dtrain.launcher.simulation.value_forms import PLAIN, Form, Forms, Kind, Use, Way, uses_of
from tests.core.net_builder import make_net
from tests.launcher.simulation.nets import DATA, dims, inner_product, loss

HALF, ROWS = Form("half", 2.0, is_rounded=True), Form("rows", 2.0, is_rounded=True, is_of_plain=True)
TEXT = (
    DATA.format(data=dims(2, 4), target=dims(2, 4))
    + inner_product("a", "data", 4)
    + 'layer { name: "b" type: "TanH" bottom: "a" top: "b" }\n'
    + 'layer { name: "c" type: "Eltwise" bottom: "b" bottom: "target" top: "c" }\n'
    + loss("c")
)


def found(ways: dict[str, Way]) -> dict[str, set[str]]:
    """Return the names of the forms of each blob's data, and of its diff by that in capitals, where the operation
    that makes a blob has the way that is given by the blob's name.
    """
    net: Net = make_net(TEXT)
    names = {id(blob): name for name, blob in net.blobs.items()}
    forms = Forms(net, lambda use: ways.get(names[id(use.tops[0])], Way(Kind.OTHER)))
    by_name: dict[str, set[str]] = {}
    for name, blob in net.blobs.items():
        for key, tensor in ((name, blob.data_tensor), (name.upper(), blob.diff_tensor)):
            by_name[key] = {form.name for form in forms.copies.get(id(tensor.storage), set())}
    return by_name


def test_forms_of_plain_operations_are_plain() -> None:
    forms = found({})
    assert (forms["data"], forms["b"], forms["B"]) == ({PLAIN.name}, {PLAIN.name}, {PLAIN.name})


def test_forms_of_a_fixed_operation_are_its_two() -> None:
    forms = found({"a": Way(Kind.FIXED, HALF, HALF)})
    assert forms["data"] == {"plain", "half"}  # as it was read from disk, and as it is multiplied
    assert forms["a"] == {"half", "plain"}  # the function behind reads plain values
    assert forms["A"] == {"plain", "half"}


def test_forms_of_one_that_follows_are_those_of_the_data() -> None:
    forms = found({"a": Way(Kind.FIXED, HALF, HALF), "b": Way(Kind.FOLLOWS)})
    assert (forms["a"], forms["b"]) == ({"half"}, {"half", "plain"})
    assert (forms["B"], forms["A"]) == ({"plain", "half"}, {"half"})


def test_forms_of_one_that_does_not_follow_16_bits_are_plain() -> None:
    forms = found({"a": Way(Kind.FIXED, HALF, HALF), "b": Way(Kind.FOLLOWS, takes_rounded=False)})
    assert (forms["a"], forms["b"]) == ({"half", "plain"}, {"plain"})


def test_forms_of_a_sum_are_those_of_the_gradient_that_comes() -> None:
    forms = found({"a": Way(Kind.FIXED, HALF, HALF), "b": Way(Kind.FOLLOWS), "c": Way(Kind.SUMS)})
    assert forms["c"] == {"half", "plain"}
    assert forms["C"] == {"plain"}  # the loss gives it
    assert forms["B"] == {"plain", "half"}


@pytest.mark.parametrize(("rows", "data"), [(ROWS, {"plain", "rows"}), (HALF, {"plain", "half"})])
def test_forms_of_rows_are_made_of_what_is_there(rows: Form, data: set[str]) -> None:
    forms = found({"a": Way(Kind.ROWS, rows, rows)})
    assert (forms["data"], forms["a"]) == (data, {"plain"})
    assert forms["A"] == {"plain", rows.name}


def test_uses_of_a_layer_without_operations_is_one_of_none() -> None:
    net = make_net(TEXT)
    i = net.layer_names.index("loss")
    (use,) = uses_of(Step(net.layers[i], net.bottoms[i], net.tops[i]))
    assert use == Use(None, net.bottoms[i], net.tops[i])
