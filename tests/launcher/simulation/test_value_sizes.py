"""Sizes of values in float32, in layouts and in bf16: by hand, and as a pass leaves them."""

from __future__ import annotations

import pytest

from dtrain.core.engines import create_engine
from dtrain.core.engines.outline import create_outline
from dtrain.core.errors import MissingLibrary
from dtrain.core.net.net import Net
from dtrain.core.tensor import HOST
from dtrain.launcher.simulation.value_sizes import rounded_blobs, storage_bytes
from tests.core.net_builder import make_net
from tests.launcher.simulation.nets import DATA, dims, inner_product, loss
from tests.played.cudnn import play_cudnn

WINDOW = "convolution_param { num_output: 4 kernel_size: 3 pad: 1 }"
TEXT = (
    DATA.format(data=dims(2, 4, 6, 6), target=dims(2, 10))
    + f'layer {{ name: "a" type: "Convolution" bottom: "data" top: "a" {WINDOW} }}\n'
    + 'layer { name: "relu" type: "ReLU" bottom: "a" top: "a" }\n'
    + 'layer { name: "pool" type: "Pooling" bottom: "a" top: "pool" pooling_param { kernel_size: 2 stride: 2 } }\n'
    + 'layer { name: "tanh" type: "TanH" bottom: "pool" top: "tanh" }\n'
    + f'layer {{ name: "b" type: "Convolution" bottom: "tanh" top: "b" {WINDOW} }}\n'
    + inner_product("ip", "b", 10)
    + loss("ip")
)
LARGE, SMALL, IP = 2 * 4 * 6 * 6, 2 * 4 * 3 * 3, 2 * 10  # values


def sizes(net: Net) -> dict[str, int]:
    """Return the bytes of data by the blob's name, of diffs by that in capitals."""
    found = storage_bytes(net)
    by_name = {name: found[id(blob.data_tensor.storage)] for name, blob in net.blobs.items()}
    return by_name | {name.upper(): found[id(blob.diff_tensor.storage)] for name, blob in net.blobs.items()}


def held_bytes(net: Net) -> dict[int, int]:
    """Return what storages that were written hold after a pass in which nothing is given back, by their ids: of a
    GPU's memory where that computes.
    """
    net.forward()
    net.backward()
    storages = [t.storage for blob in net.blobs.values() for t in (blob.data_tensor, blob.diff_tensor)]
    elsewhere = HOST if net.context.engine.name == "cudnn" else None
    copies = {id(s): [copy for memory, copy in s.copies.items() if memory is not elsewhere] for s in storages}
    return {key: sum(copy.nbytes for copy in found) for key, found in copies.items() if found}


def check_against_a_pass(net: Net) -> None:
    planned = storage_bytes(net)
    held = held_bytes(net)
    assert held
    assert {key: planned[key] for key in held} == held


def test_storage_bytes_on_the_reference_engine_are_four_a_value() -> None:
    net = make_net(TEXT)
    found = sizes(net)
    assert (found["a"], found["A"], found["pool"], found["ip"]) == (4 * LARGE, 4 * LARGE, 4 * SMALL, 4 * IP)
    assert rounded_blobs(net) == frozenset()
    check_against_a_pass(net)


@pytest.mark.parametrize("num_channels", [4, 16, 20])
def test_storage_bytes_in_layouts_are_those_of_a_pass(num_channels: int) -> None:
    try:
        engine = create_engine("onednn")
    except MissingLibrary:
        pytest.skip("oneDNN is not installed")
    check_against_a_pass(
        make_net(TEXT.replace("num_output: 4", f"num_output: {num_channels}"), engine=engine)
    )


@pytest.mark.usefixtures("bf16")
def test_storage_bytes_in_bf16_are_two_a_value_and_those_of_copies() -> None:
    net = make_net(TEXT, engine=create_engine("onednn", "BF16"))
    assert rounded_blobs(net) == {"a", "pool", "tanh", "b"}
    found = sizes(net)
    assert found["data"] == (4 + 2) * LARGE  # float32, and as the convolution reads it
    assert (found["a"], found["A"]) == (2 * LARGE, 2 * LARGE)
    assert (found["pool"], found["POOL"]) == (2 * SMALL, 2 * SMALL)
    assert found["b"] == (2 + 4 + 2) * SMALL  # of the inner product's shape it is made of plain values
    assert (found["ip"], found["IP"]) == (4 * IP, (4 + 2) * IP)
    check_against_a_pass(net)


BRANCHES = (
    TEXT.replace(loss("ip"), "").replace('bottom: "tanh"', 'bottom: "norm"')
    + 'layer { name: "norm2" type: "LRN" bottom: "b" top: "lrn" }\n'
    + 'layer { name: "both" type: "Concat" bottom: "b" bottom: "lrn" top: "both" }\n'
    + 'layer { name: "sum" type: "Eltwise" bottom: "b" bottom: "lrn" top: "sum" }\n'
    + inner_product("ip2", "both", 10)
    + inner_product("ip3", "sum", 10)
    + inner_product("ip4", "ip3", 10)
    + 'layer { name: "drop" type: "Dropout" bottom: "ip4" top: "drop" }\n'
    + 'layer { name: "all" type: "Eltwise" bottom: "ip" bottom: "ip2" bottom: "drop" top: "all" }\n'
    + loss("all")
).replace(
    'layer { name: "b" type',
    'layer { name: "norm" type: "BatchNorm" bottom: "tanh" top: "norm" }\nlayer { name: "b" type',
)


@pytest.mark.parametrize("precision", ["FLOAT32", "BF16", "FLOAT16"])
def test_storage_bytes_on_cudnn_are_those_of_a_pass(monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    play_cudnn(monkeypatch)
    net = make_net(BRANCHES, engine=create_engine("cudnn", precision))
    outlined = make_net(BRANCHES, engine=create_outline("cudnn", precision))
    assert sizes(outlined) == sizes(net)
    assert rounded_blobs(outlined) == rounded_blobs(net)
    net.blobs["data"].write_data(
        net.context.engine.memory
    )  # as a layer does that reads, DummyData is the host's
    net.layers[0].refills = []  # type: ignore[attr-defined]
    check_against_a_pass(net)


def test_storage_bytes_least_are_those_of_the_smallest_copy() -> None:
    net = make_net(TEXT, engine=create_outline("cudnn", "BF16"))
    found, least = storage_bytes(net), storage_bytes(net, least=True)
    data = id(net.blobs["data"].data_tensor.storage)
    assert (found[data], least[data]) == (6 * LARGE, 2 * LARGE)
