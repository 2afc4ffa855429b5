"""Values around a captured pass: brought to where it reads them, and known to be where it leaves them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dtrain.core.engines import create_engine
from dtrain.core.kept import Kept
from dtrain.core.net.fixed_places import FixedPlaces, pin, put_back, settle
from dtrain.core.net.memory_sharing import share_memory
from dtrain.core.net.net import Net
from dtrain.core.tensor import HOST
from tests.core.net_builder import make_net
from tests.played.cupy import play_cupy

NET = """
layer { name: "data" type: "DummyData" top: "data"
  dummy_data_param { shape { dim: 2 dim: 3 } data_filler { type: "uniform" } } }
layer { name: "norm" type: "BatchNorm" bottom: "data" top: "data" }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
  inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }
layer { name: "sum" type: "Reduction" bottom: "ip" top: "sum" loss_weight: 1 }
"""


@pytest.fixture
def net(monkeypatch: pytest.MonkeyPatch) -> Net:
    """Return a net on a GPU whose first layer draws on the host, into what the second writes over."""
    play_cupy(monkeypatch)
    found = make_net(NET, engine=create_engine("cupy"))
    settle([param.blob for param in found.learnable_params], found.context.engine.memory)
    share_memory([found])
    return found


def run(net: Net) -> None:
    for i in range(1, len(net.layers)):
        net.pass_layer(i, lambda i: None)
    net.pass_back()


def run_source(net: Net) -> Any:
    """Draw a batch; return what it is, on the host."""
    net.context.random.pass_index += 1
    net.run_layer(0)
    pin(net.tops[0], net.context.engine.memory)
    return net.blobs["data"].data_tensor.read(HOST).copy()


def test_source_writes_where_the_pass_reads_and_is_read_there(net: Net) -> None:
    memory, data = net.context.engine.memory, net.blobs["data"].data_tensor
    run_source(net)
    run(net)
    run_source(net)
    places = FixedPlaces(net, net.tops[0])
    read = data.storage.copies[memory]
    places.record(lambda: run(net))
    for _ in range(3):
        places.await_sources()
        batch = run_source(net)
        places.prepare()
        assert data.storage.copies[memory] is read
        np.testing.assert_array_equal(read.get(), batch.reshape(-1))
        places.conclude()


def test_source_that_writes_nothing_has_what_a_script_has_written(net: Net) -> None:
    memory, blob = net.context.engine.memory, net.blobs["data"]
    run_source(net)
    run(net)
    run_source(net)
    places = FixedPlaces(net, net.tops[0])
    read = blob.data_tensor.storage.copies[memory]
    places.record(lambda: run(net))
    for value in (5, 6):
        blob.data[...] = value
        places.await_sources()
        places.prepare()
        assert (read.get() == value).all()
        places.conclude()
    for value in (7, 8):
        blob.write_data(memory).fill(value)
        places.await_sources()
        places.prepare()
        assert (read.get() == value).all()
        places.conclude()


def test_params_that_the_host_has_changed_are_brought_to_the_pass(net: Net) -> None:
    memory, weight = net.context.engine.memory, net.params["ip"][0]
    for _ in range(2):
        run_source(net)
        run(net)
    places = FixedPlaces(net, net.tops[0])
    there = weight.data_tensor.storage.copies[memory]
    places.record(lambda: run(net))
    held = weight.data
    for value in (3, 4):
        held[...] = value
        places.prepare()
        assert weight.read_data(memory).get().max() == value
        assert weight.data_tensor.storage.copies[memory] is there
        assert (there.get() == value).all()
        places.conclude()
        net.refresh()
    weight.data_tensor.storage.copies[memory] = there.copy() * 2  # as if somebody had other memory for it
    weight.data_tensor.storage.valid = {memory}
    places.prepare()
    assert weight.data_tensor.storage.copies[memory] is there
    assert (there.get() == 8).all()


def test_failed_capture_leaves_values_that_nothing_else_has_taken(net: Net) -> None:
    data = net.blobs["data"].data_tensor
    memory, keeper = net.context.engine.memory, Kept()
    run_source(net)
    run(net)
    batch = run_source(net)

    def fail() -> None:
        keeper.take(data, memory)
        data.write(memory)[...] = np.nan
        raise RuntimeError("no graph")

    with pytest.raises(RuntimeError, match="no graph"):
        FixedPlaces(net, net.tops[0]).record(fail)
    np.testing.assert_array_equal(data.read(memory).get(), batch)
    keeper.take(data, memory)
    data.write(memory)[...] = 7
    np.testing.assert_array_equal(keeper.values.get(), batch)


def test_batch_of_another_shape_is_found(net: Net) -> None:
    run_source(net)
    run(net)
    run_source(net)
    places = FixedPlaces(net, net.tops[0])
    places.record(lambda: run(net))
    assert places.find_reshaped() == ""
    net.blobs["data"].reshape(1, 3)
    assert places.find_reshaped() == "a batch of shape (1, 3) came after one of (2, 3)"


def test_pass_that_is_put_back_has_moved_no_statistics(net: Net) -> None:
    run_source(net)
    run(net)
    before = [blob.read_data().copy() for blob in net.params["norm"]]
    valid = net.blobs["data"].data_tensor.storage.valid.copy()
    with put_back(net):
        run_source(net)
        net.pass_layer(1, lambda i: None)
        assert any(
            (blob.read_data() != old).any() for blob, old in zip(net.params["norm"], before, strict=True)
        )
    for blob, old in zip(net.params["norm"], before, strict=True):
        np.testing.assert_array_equal(blob.read_data(), old)
    assert net.blobs["data"].data_tensor.storage.valid == valid
