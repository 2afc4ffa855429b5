"""Values around a captured pass: brought to where it reads them, and known to be where it leaves them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dtrain.core.engines import create_engine
from dtrain.core.kept import Kept
from dtrain.core.net.fixed_places import FixedPlaces, Watch, pin, put_back, settle, storages_of
from dtrain.core.net.memory_sharing import share_memory
from dtrain.core.net.net import Net
from dtrain.core.tensor import HOST, Storage, Tensor
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
    for value in (5, 6):
        held[...] = value
        places.prepare()
        assert (there.get() == value).all()
        places.conclude()
    weight.data_tensor.storage.copies[memory] = there.copy() * 2  # as if somebody had other memory for it
    weight.data_tensor.storage.valid = {memory}
    places.prepare()
    assert weight.data_tensor.storage.copies[memory] is there
    assert (there.get() == 12).all()


def test_watch_knows_the_storages_that_somebody_has_looked_into_alone() -> None:
    tensors = [Tensor((2, 3)) for _ in range(4)]
    for tensor in tensors:
        tensor.write()[...] = 1
    watch = Watch()
    watch.add(tensor.storage for tensor in tensors[:3])
    assert not watch.looked_into
    tensors[2].read()
    tensors[0].storage.clear()
    tensors[3].read()
    assert list(watch.looked_into) == [tensors[2].storage, tensors[0].storage]
    assert tensors[2].storage.valid == {HOST}
    assert (tensors[0].read() == 0).all()
    assert isinstance(tensors[0].storage, Storage)
    watch.end()
    tensors[1].read()
    assert not watch.looked_into


def test_replays_leave_storages_alone_that_nobody_has_looked_into(net: Net) -> None:
    for _ in range(2):
        run_source(net)
        run(net)
    watch = Watch()
    places = FixedPlaces(net, net.tops[0], watch)
    places.record(lambda: run(net))
    places.prepare()
    places.conclude()
    weight = net.params["ip"][0]
    for _ in range(2):
        places.prepare()
        assert not watch.looked_into
        places.conclude()
    before = {storage: (dict(storage.copies), set(storage.valid)) for storage in storages_of(net)}
    for blob in (*net.blobs.values(), weight):
        blob.diff_tensor.write()[...] = 5  # on the host, as a script may
    weight.data[...] = 6
    places.prepare()
    memory = net.context.engine.memory
    assert (weight.data_tensor.storage.copies[memory].get() == 6).all()
    places.conclude()
    for storage, (copies, valid) in before.items():
        assert all(storage.copies[memory] is array for memory, array in copies.items() if memory is not HOST)
        assert storage.valid == valid or storage is weight.data_tensor.storage


def test_passes_of_one_watch_know_what_the_other_has_left(net: Net) -> None:
    memory, weight = net.context.engine.memory, net.params["ip"][0]
    for _ in range(2):
        run_source(net)
        run(net)
    watch, storage = Watch(), weight.data_tensor.storage
    forward, whole = (FixedPlaces(net, net.tops[0], watch) for _ in range(2))
    weight.diff_tensor.storage.clear()
    forward.record(lambda: [net.pass_layer(i, lambda i: None) for i in range(1, len(net.layers))])
    there = storage.copies[memory]
    storage.copies[memory] = elsewhere = there.copy()
    whole.record(lambda: run(net))
    weight.diff_tensor.storage.clear()
    for value in (2, 3):
        weight.write_data()[...] = value
        for places, array in ((forward, there), (whole, elsewhere)):
            places.prepare()
            assert storage.copies[memory] is array
            assert (array.get() == value).all()
            places.conclude()
        assert weight.diff_tensor.storage.valid == {memory}
        weight.diff_tensor.storage.clear()


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
