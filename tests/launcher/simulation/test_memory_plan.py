"""What training will take: planned, against counts by hand and against a pool that has really lent."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest

from dtrain.core.engines import create_engine
from dtrain.core.net.memory_sharing import find_net_again, share_memory
from dtrain.core.net.net import Net
from dtrain.launcher.simulation.memory_plan import (
    kept_bytes,
    kept_storages,
    plan_least,
    plan_operations,
    plan_pool,
    plan_scratch,
    plan_temporary,
    rounded_weight_bytes,
    written_storages,
)
from tests.core.net_builder import TEST, make_net
from tests.launcher.simulation.nets import DATA, dims, inner_product, loss

CONVOLUTION = 'convolution_param { num_output: 4 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } }'
BRANCHES = (
    DATA.format(data=dims(4, 4, 8, 8), target=dims(4, 10))
    + f'layer {{ name: "a" type: "Convolution" bottom: "data" top: "a" {CONVOLUTION} }}\n'
    + f'layer {{ name: "b" type: "Convolution" bottom: "a" top: "b" {CONVOLUTION} }}\n'
    + f'layer {{ name: "c" type: "Convolution" bottom: "a" top: "c" {CONVOLUTION} }}\n'
    + 'layer { name: "bn" type: "BatchNorm" bottom: "c" top: "c" }\n'
    + 'layer { name: "scale" type: "Scale" bottom: "c" top: "c" }\n'
    + 'layer { name: "drop" type: "Dropout" bottom: "c" top: "c" }\n'
    + 'layer { name: "sum" type: "Eltwise" bottom: "a" bottom: "b" bottom: "c" top: "sum" }\n'
    + 'layer { name: "pool" type: "Pooling" bottom: "sum" top: "pool" pooling_param { kernel_size: 2 stride: 2 } }\n'
    + inner_product("ip", "pool", 10)
    + loss("ip")
)
PLANE = 4 * 4 * 4 * 8 * 8  # bytes of a, b, c and sum


def chain(phase: int) -> Net:
    text = DATA.format(data=dims(2, 64), target=dims(2, 128)) + inner_product("a", "data", 16)
    return make_net(text + inner_product("b", "a", 64) + inner_product("c", "b", 128) + loss("c"), phase)


def test_plan_pool_of_a_chain_is_where_its_farthest_value_lies() -> None:
    a, b, c = 4 * 2 * 16, 4 * 2 * 64, 4 * 2 * 128
    # training: c's gradient behind all data; then b's fits where c was, and a's where b was
    assert plan_pool(chain(phase=0)) == a + b + c + c
    assert plan_pool(chain(TEST)) == a + b + c  # where a was there is no room for c


@pytest.mark.parametrize("phase", [0, TEST])
def test_plan_pool_is_what_a_pool_lends(phase: int) -> None:
    net = make_net(BRANCHES, phase)
    planned = plan_pool(net)
    pool = share_memory([net])
    net.forward()
    if phase != TEST:
        net.backward()
    assert pool.peak_bytes == planned


def test_plan_pool_with_recomputation_is_what_a_pool_lends() -> None:
    deep = DATA.format(data=dims(4, 64), target=dims(4, 10)) + inner_product("ip", "data", 64)
    names = ["ip", *(f"y{k}" for k in range(30))]
    for below, top in zip(names, names[1:], strict=False):
        deep += f'layer {{ name: "{top}" type: "TanH" bottom: "{below}" top: "{top}" }}\n'
    net = make_net(deep + inner_product("end", names[-1], 10) + loss("end"))
    again = find_net_again(net)
    planned = plan_pool(net, again)
    pool = share_memory([net], recomputes=True)
    net.forward()
    net.backward()
    assert again
    assert pool.peak_bytes == planned
    assert planned < 0.6 * plan_pool(net)


def test_kept_bytes_of_batch_norm_in_place_are_those_of_what_it_writes_over() -> None:
    net = make_net(BRANCHES)
    i = net.layer_names.index("bn")
    assert kept_bytes(net, i) == PLANE
    assert kept_bytes(net, i, rounded={"c"}) == PLANE // 2
    assert kept_bytes(net, net.layer_names.index("scale")) == 0


@pytest.mark.usefixtures("bf16")
def test_rounded_weight_bytes_are_those_of_layers_in_bf16_that_give_a_gradient() -> None:
    net = make_net(BRANCHES, engine=create_engine("onednn", "BF16"))
    found = {name: rounded_weight_bytes(net, i) for i, name in enumerate(net.layer_names)}
    weight = 2 * 4 * 4 * 3 * 3
    assert {name: size for name, size in found.items() if size} == {
        "b": weight,
        "c": weight,
        "ip": 2 * 10 * 4 * 4 * 4,
    }
    assert rounded_weight_bytes(make_net(BRANCHES), net.layer_names.index("ip")) == 0


def test_plan_scratch_counts_what_layers_keep_of_what_they_write_over() -> None:
    net = make_net(BRANCHES)
    # BatchNorm keeps x; Scale in place keeps x, and makes x·dy; Dropout has its factors; a weight's gradient
    assert plan_scratch(net) == 4 * PLANE + 4 * 4 * 4 * 9


def test_kept_storages_are_those_of_inputs_and_losses() -> None:
    net = chain(phase=0)
    found = {id(storage) for storage in kept_storages(net)}
    blobs = net.blobs
    kept = [blobs[name].data_tensor for name in ("data", "target", "loss")] + [blobs["loss"].diff_tensor]
    assert found == {id(tensor.storage) for tensor in kept}


def test_written_storages_are_those_of_tops_and_of_gradients_that_are_given() -> None:
    net = chain(phase=0)
    blobs = net.blobs
    data = [blobs[name].data_tensor for name in ("data", "target", "a", "b", "c", "loss")]
    diffs = [blobs[name].diff_tensor for name in "abc"]
    assert {id(s) for s in written_storages(net)} == {id(tensor.storage) for tensor in (*data, *diffs)}
    tested = chain(TEST)
    written = {id(storage) for storage in written_storages(tested)}
    assert written == {id(blob.data_tensor.storage) for blob in tested.blobs.values()}


def test_plan_least_is_the_most_that_is_there_at_once() -> None:
    a, b, c = 4 * 2 * 16, 4 * 2 * 64, 4 * 2 * 128
    assert plan_least(chain(phase=0)) == a + b + c + c
    assert plan_least(chain(TEST)) == b + c  # a has died


def test_plan_operations_counts_what_an_engine_compiles_for_convolutions() -> None:
    net = make_net(BRANCHES)
    assert plan_operations(net) == 0  # numpy compiles nothing
    compiling = SimpleNamespace(
        layers=net.layers, context=SimpleNamespace(engine=SimpleNamespace(name="onednn"))
    )
    assert plan_operations(cast(Net, compiling)) == 3 * 500_000


def test_plan_temporary_is_the_largest_draw_in_float64() -> None:
    drawn = DATA.replace("constant", "gaussian").replace("value: 1", "std: 1")
    text = drawn.format(data=dims(4, 8), target=dims(4, 3))
    net = make_net(text + inner_product("ip", "data", 3) + loss("ip"))
    assert plan_temporary(net) == 8 * 4 * 8
    assert plan_temporary(chain(phase=0)) == 0
