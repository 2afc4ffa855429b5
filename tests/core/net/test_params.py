from __future__ import annotations

import numpy as np
import pytest

from dtrain.core.errors import UserError
from dtrain.core.net.params import trainable
from tests.core.net_builder import inputs, make_net

HEAD = inputs(x=(2, 6)) + "\n"


def ip(name: str, bottom: str = "x", num_output: int = 4, params: str = "") -> str:
    return (
        f'layer {{ name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{name}" {params} '
        f'inner_product_param {{ num_output: {num_output} weight_filler {{ type: "xavier" }} }} }}\n'
    )


def problem_of(text: str) -> str:
    with pytest.raises(UserError) as caught:
        make_net(HEAD + text)
    (problem,) = caught.value.problems
    return problem


def test_params_are_listed_in_order_with_caffe_s_multipliers() -> None:
    net = make_net(
        HEAD
        + ip("a", params="param { lr_mult: 3 decay_mult: 0.5 } param { lr_mult: 0 }")
        + ip("b", "a", params='param { name: "w" }')
    )
    listed = [
        (net.layer_names[p.layer_index], p.index, p.learning_rate_multiplier, p.decay_multiplier)
        for p in net.learnable_params
    ]
    assert listed == [("a", 0, 3, 0.5), ("a", 1, 0, 1), ("b", 0, 1, 1), ("b", 1, 1, 1)]
    assert [(p.layer_index, p.index) for p in trainable(net.learnable_params)] == [(1, 0), (2, 0), (2, 1)]
    assert net.param_table.of(2, 0) is net.learnable_params[2]


def test_params_that_are_statistics_do_not_learn() -> None:
    net = make_net(HEAD + 'layer { name: "bn" type: "BatchNorm" bottom: "x" top: "y" }')
    assert [(p.is_statistic, p.learning_rate_multiplier) for p in net.learnable_params] == [(True, 0)] * 3
    assert trainable(net.learnable_params) == []


SPECS = "param { lr_mult: 0 } param { lr_mult: 2 }"
BATCH_NORM = 'layer { name: "bn" type: "BatchNorm" bottom: "a" top: "bn" }\n'
LOSS = 'layer { name: "sum" type: "Eltwise" bottom: "c" bottom: "c" top: "sum" loss_weight: 1 }\n'


@pytest.mark.parametrize(
    ("force", "expected"),
    [
        ("", [("a", 1), ("c", 0), ("c", 1)]),
        ("force_backward: true", [("a", 0), ("a", 1), ("c", 0), ("c", 1)]),  # statistics never
    ],
)
def test_with_gradients_are_those_that_learn_and_under_force_the_fixed_ones(
    force: str, expected: list[tuple[str, int]]
) -> None:
    net = make_net(f"{force} {HEAD}" + ip("a", params=SPECS) + BATCH_NORM + ip("c", "bn") + LOSS)
    assert [(p.layer_name, p.index) for p in net.param_table.with_gradients] == expected


def test_with_gradients_has_a_shared_param_once() -> None:
    names = 'param { name: "w" }'
    net = make_net(f"force_backward: true {HEAD}" + ip("a", params=names) + ip("c", params=names) + LOSS)
    assert [(p.layer_name, p.title) for p in net.param_table.with_gradients] == [
        ("a", "w"),
        ("a", "1"),
        ("c", "1"),
    ]


def test_params_know_their_roles() -> None:
    net = make_net(HEAD + ip("a") + BATCH_NORM)
    roles = [(p.layer_name, p.is_bias, p.is_normalisation) for p in net.learnable_params]
    assert roles == [("a", False, False), ("a", True, False)] + [("bn", False, True)] * 3


def test_params_of_one_name_are_one_blob_of_the_first_layer() -> None:
    names = 'param { name: "w" } param { name: "b" }'
    net = make_net(HEAD + ip("a", params=names) + ip("c", params=names))
    assert [(p.layer_index, p.name) for p in net.learnable_params] == [(2, "w"), (2, "b")]
    a, c = net.params["a"], net.params["c"]
    for mine, theirs in zip(a, c, strict=True):
        mine.data[...] = 3
        mine.diff[...] = 4
        assert (theirs.data == 3).all()
        assert (theirs.diff == 4).all()
    assert net.param_table.of(3, 0) is net.learnable_params[0]


def test_params_shared_permissively_need_equal_counts_alone() -> None:
    # weights of a: (4, 6); of c, behind a: (6, 4)
    sharing = 'param { name: "w" share_mode: PERMISSIVE }'
    net = make_net(HEAD + ip("a", params='param { name: "w" }') + ip("c", "a", 6, sharing))
    assert (net.params["a"][0].shape, net.params["c"][0].shape) == ((4, 6), (6, 4))
    net.params["a"][0].data[...] = np.arange(24).reshape(4, 6)
    np.testing.assert_array_equal(net.params["c"][0].data, np.arange(24).reshape(6, 4))


@pytest.mark.parametrize(
    ("num_output", "sharing", "shape"),
    [
        (6, 'param { name: "w" }', (6, 4)),
        (6, 'param { name: "w" share_mode: STRICT }', (6, 4)),
        (5, 'param { name: "w" share_mode: PERMISSIVE }', (5, 4)),
    ],
)
def test_params_shared_of_other_shapes_are_refused(
    num_output: int, sharing: str, shape: tuple[int, int]
) -> None:
    problem = problem_of(ip("a", params='param { name: "w" }') + ip("c", "a", num_output, sharing))
    assert problem == (
        f'net.prototxt:3: layer "c": param "w" has shape {shape}, but its owner has (4, 6); shared params must be '
        "of equal shape, or of equal count with share_mode: PERMISSIVE"
    )


@pytest.mark.parametrize(
    ("owner", "sharer", "expected"),
    [
        ("lr_mult: 2 decay_mult: 3", "", (2, 3)),
        ("", "lr_mult: 2 decay_mult: 3", (2, 3)),
        ("lr_mult: 2", "decay_mult: 0", (2, 0)),
        ("lr_mult: 2", "lr_mult: 2", (2, 1)),
        ("", "", (1, 1)),
    ],
)
def test_params_shared_take_the_multipliers_that_any_of_them_sets(
    owner: str, sharer: str, expected: tuple[float, float]
) -> None:
    texts = [f'param {{ name: "w" {fields} }}' for fields in (owner, sharer)]
    net = make_net(HEAD + ip("a", params=texts[0]) + ip("c", params=texts[1]))
    param = net.learnable_params[0]
    assert (param.learning_rate_multiplier, param.decay_multiplier) == expected


@pytest.mark.parametrize("field", ["lr_mult", "decay_mult"])
def test_params_shared_with_contradicting_multipliers_are_refused(field: str) -> None:
    texts = [f'param {{ name: "w" {field}: {value} }}' for value in (1, 2)]
    problem = problem_of(ip("a", params=texts[0]) + ip("c", params=texts[1]))
    assert problem == f'net.prototxt:3: layer "c": param "w" has {field} 2.0 here and 1.0 at its owner'


def test_params_with_more_specs_than_there_are_is_refused() -> None:
    problem = problem_of(ip("a", params="param { } param { } param { }"))
    assert problem == 'net.prototxt:2: layer "a": has 2 params, but 3 param { … } blocks are given'
