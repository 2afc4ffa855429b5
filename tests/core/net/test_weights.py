from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from dtrain.core.errors import UserError
from dtrain.core.net.net import Net
from dtrain.core.net.weights import copy_weights, is_shared, layer_records
from dtrain.core.snapshots import (
    LayerWeights,
    read_caffemodel,
    read_hdf5_model,
    write_caffemodel,
    write_hdf5_model,
)
from tests.core.net_builder import inputs, make_net


def make_pair(first: str = "a", num_output: int = 3, bias: str = "true", seed: int = 1) -> Net:
    """Return a net of two inner products, the first called `first`; x is consumed twice, hence split."""
    text = (
        inputs(x=(2, 4))
        + f"""
        layer {{ name: "{first}" type: "InnerProduct" bottom: "x" top: "a"
          inner_product_param {{ num_output: 3 weight_filler {{ type: "xavier" }} }} }}
        layer {{ name: "b" type: "InnerProduct" bottom: "x" top: "b" inner_product_param {{
          num_output: {num_output} bias_term: {bias} weight_filler {{ type: "xavier" }} }} }}"""
    )
    return make_net(text, seed=seed)


def values_of(net: Net) -> dict[str, list[np.ndarray]]:
    return {name: [blob.data.copy() for blob in blobs] for name, blobs in net.params.items()}


def same(left: dict[str, list[np.ndarray]], right: dict[str, list[np.ndarray]]) -> bool:
    return all(
        np.array_equal(mine, theirs)
        for name in left.keys() | right.keys()
        for mine, theirs in zip(left[name], right[name], strict=True)
    )


@pytest.fixture
def saved(tmp_path: Path) -> str:
    """Return the path of the weights of make_pair(seed=7)."""
    path = str(tmp_path / "w.caffemodel")
    net = make_pair(seed=7)
    write_caffemodel(path, "pair", layer_records(net))
    return path


def read(path: str) -> list[LayerWeights]:
    return read_caffemodel(path)


def test_layer_records_of_a_net_name_every_layer_in_order_splits_included() -> None:
    net = make_pair()
    records = layer_records(net)
    assert [record.parameter.name for record in records] == ["x", "x_x_0_split", "a", "b"]
    assert [[array.shape for array in record.blobs] for record in records] == [[], [], [(3, 4), (3,)]] + [
        [(3, 4), (3,)]
    ]
    np.testing.assert_array_equal(records[2].blobs[0], net.params["a"][0].data)


def test_layer_records_as_copies_stay_as_they_were() -> None:
    net = make_pair()
    copies, views = layer_records(net, copy=True), layer_records(net)
    before = net.params["a"][0].data.copy()
    net.params["a"][0].data[...] = 9
    np.testing.assert_array_equal(copies[2].blobs[0], before)
    assert (views[2].blobs[0] == 9).all()


def test_layer_records_with_diff_hold_the_diffs() -> None:
    net = make_pair()
    net.params["b"][1].diff[...] = 6
    assert (layer_records(net, with_diff=True)[3].diffs[1] == 6).all()
    assert len(layer_records(net)[3].diffs) == 0


def test_copy_weights_of_the_same_net_gives_its_params(saved: str) -> None:
    net = make_pair()
    assert not same(values_of(net), values_of(make_pair(seed=7)))
    copy_weights(net, read(saved), saved)
    assert same(values_of(net), values_of(make_pair(seed=7)))


def test_copy_weights_goes_by_name_and_leaves_other_layers_at_their_fillers(
    saved: str, caplog: pytest.LogCaptureFixture
) -> None:
    net = make_pair(first="renamed")
    before = values_of(net)
    with caplog.at_level(logging.INFO):
        copy_weights(net, read(saved), saved)
    after, source = values_of(net), values_of(make_pair(seed=7))
    assert same({"r": after["renamed"]}, {"r": before["renamed"]})
    assert same({"b": after["b"]}, {"b": source["b"]})
    assert caplog.messages == [
        f"Copied the weights of 1 layer from {saved}: b",
        f"Left out 1 layer of {saved} that this net does not have: a",
        f"Left 1 layer at its fillers that {saved} does not have: renamed",
    ]


def test_copy_weights_of_no_common_layer_says_so(saved: str, caplog: pytest.LogCaptureFixture) -> None:
    text = inputs(x=(2, 4)) + "".join(
        f'layer {{ name: "n{i}" type: "InnerProduct" bottom: "x" top: "n{i}"'
        " inner_product_param { num_output: 1 } }"
        for i in range(10)
    )
    with caplog.at_level(logging.INFO):
        copy_weights(make_net(text), read(saved), saved)
    assert caplog.messages == [
        f"Copied the weights of 0 layers from {saved}",
        f"Left out 2 layers of {saved} that this net does not have: a, b",
        f"Left 10 layers at their fillers that {saved} does not have: n0, n1, n2, n3, n4, n5, n6, n7, …",
    ]
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO", "INFO"]


def test_copy_weights_of_several_layers_of_one_name_in_the_file_takes_the_last(saved: str) -> None:
    first = LayerWeights("a", "InnerProduct", (np.zeros((3, 4)), np.zeros(3)))
    net = make_pair()
    copy_weights(net, [first, *read(saved)], saved)
    assert same(values_of(net), values_of(make_pair(seed=7)))


def test_copy_weights_of_several_layers_of_one_name_in_the_net_go_to_the_first(saved: str) -> None:
    net = make_pair(first="b")
    before = [blob.data.copy() for blob in net.layers[3].blobs]
    copy_weights(net, read(saved), saved)
    source = make_pair(seed=7).params["b"]
    for i in (0, 1):
        np.testing.assert_array_equal(net.layers[2].blobs[i].data, source[i].data)
        np.testing.assert_array_equal(net.layers[3].blobs[i].data, before[i])


def test_copy_weights_of_doubles_rounds_them() -> None:
    net = make_pair()
    values = np.full((3, 4), 1 / 3), np.full(3, 1e-50)
    copy_weights(net, [LayerWeights("a", "", values)], "x")
    assert net.params["a"][0].dtype == np.float32
    assert (net.params["a"][0].data == np.float32(1 / 3)).all()
    assert (net.params["a"][1].data == 0).all()


def test_copy_weights_of_legacy_shapes_compares_them_from_the_right() -> None:
    net = make_pair()
    weights, bias = np.arange(12.0).reshape(1, 1, 3, 4), np.arange(3.0).reshape(1, 1, 1, 3)
    copy_weights(net, [LayerWeights("a", "", (weights, bias), legacy_dims=True)], "x")
    assert net.params["a"][0].data.tolist() == np.arange(12.0).reshape(3, 4).tolist()
    with pytest.raises(
        UserError, match=r'param 0 of layer "a" must be \(3, 4\) as in this net, got \(1, 1, 3, 4\)'
    ):
        copy_weights(net, [LayerWeights("a", "", (weights, bias))], "x")
    with pytest.raises(UserError, match=r"got \(1, 3, 4, 1\)"):
        copy_weights(net, [LayerWeights("a", "", (weights.reshape(1, 3, 4, 1), bias), legacy_dims=True)], "x")


SHARED = """
    layer { name: "a" type: "InnerProduct" bottom: "x" top: "a" param { name: "w" }
      inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
    layer { name: "b" type: "InnerProduct" bottom: "a" top: "b" param { name: "w" }
      inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }"""


def test_layer_records_of_shared_params_have_all_blobs_and_say_which_are_shared() -> None:
    records = layer_records(make_net(inputs(x=(2, 4)) + SHARED))[1:]
    assert [(len(record.blobs), set(record.shared)) for record in records] == [(2, set()), (2, {0})]
    assert np.shares_memory(records[0].blobs[0], records[1].blobs[0])


def test_copy_weights_of_hdf5_needs_no_params_that_the_net_shares(tmp_path: Path) -> None:
    path = tmp_path / "shared.caffemodel.h5"
    source = make_net(inputs(x=(2, 4)) + SHARED, seed=7)
    write_hdf5_model(path, "shared", layer_records(source))
    assert {
        layer.name: len([b for b in layer.blobs if b is not None]) for layer in read_hdf5_model(path)
    } == {"x": 0, "a": 2, "b": 1}
    net = make_net(inputs(x=(2, 4)) + SHARED)
    copy_weights(net, read_hdf5_model(path), "x")
    assert same(values_of(net), values_of(source))
    unshared = make_net(inputs(x=(2, 4)) + SHARED.replace('param { name: "w" }', ""))
    before = values_of(unshared)
    with pytest.raises(UserError) as error:
        copy_weights(unshared, read_hdf5_model(path), "x")
    assert str(error.value) == (
        'x: param 0 of layer "b" must be there, since no other layer of this net owns it, got none; '
        "rename the layer to leave it at its fillers"
    )
    assert same(values_of(unshared), before)


def test_copy_weights_of_hdf5_with_more_params_than_the_layer_is_refused() -> None:
    weights = LayerWeights("a", "", (np.zeros((3, 4)), np.zeros(3), np.zeros(1)), owned_only=True)
    with pytest.raises(
        UserError, match='x: layer "a" must have 2 params as in this net, got 3; rename the layer'
    ):
        copy_weights(make_pair(), [weights], "x")


def test_is_shared_of_owners_and_sharers() -> None:
    net = make_net(inputs(x=(2, 4)) + SHARED)
    assert [is_shared(net, layer, i) for layer in (1, 2) for i in (0, 1)] == [False, False, True, False]


def test_copy_weights_that_do_not_fit_names_every_layer_and_changes_nothing(tmp_path: Path) -> None:
    path = str(tmp_path / "other.caffemodel")
    other = make_pair(num_output=5, bias="false", seed=7)
    records = layer_records(other)
    records[2].blobs[0] = np.zeros((3, 9), np.float32)
    write_caffemodel(path, "other", records)
    net = make_pair()
    before = values_of(net)
    with pytest.raises(UserError) as caught:
        copy_weights(net, read(path), path)
    hint = "rename the layer to leave it at its fillers"
    assert caught.value.problems == (
        f'{path}: param 0 of layer "a" must be (3, 4) as in this net, got (3, 9); {hint}',
        f'{path}: layer "b" must have 2 params as in this net, got 1; {hint}',
    )
    assert same(values_of(net), before)
