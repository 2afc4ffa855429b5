from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from dtrain.core.errors import UserError
from dtrain.core.net.net import Net
from dtrain.core.net.weights import copy_weights, layer_records
from dtrain.core.snapshots import LayerWeights, read_caffemodel, write_caffemodel
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
        f"Copied the weights of 1 layers from {saved}; at their fillers: renamed",
        f"{saved} holds layers that this net does not have: a",
    ]


def test_copy_weights_of_several_layers_of_one_name_takes_the_first(saved: str) -> None:
    layers = read(saved)
    doubled = [*layers, LayerWeights("a", "InnerProduct", (np.zeros((3, 4)), np.zeros(3)))]
    net = make_pair()
    copy_weights(net, doubled, saved)
    assert same(values_of(net), values_of(make_pair(seed=7)))


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
