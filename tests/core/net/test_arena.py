from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from dtrain.core.blob import Blob
from dtrain.core.net.arena import Arena, swap_values
from dtrain.core.net.params import Param
from dtrain.core.tensor import HostMemory
from dtrain.dist.memory import ALIGNMENT_BYTES
from tests.core.net_builder import inputs, make_net


def make_param(values: np.ndarray) -> Param:
    blob = Blob(values.shape)
    blob.data[...] = values
    blob.diff[...] = -values
    return Param(blob, 0, 0, "", None, None)


def test_arena_takes_params_in_with_their_values() -> None:
    first, second = np.arange(6.0).reshape(2, 3), np.arange(20.0)
    params = [make_param(first), make_param(second)]
    arena = Arena(params)
    for param, values in zip(params, (first, second), strict=True):
        np.testing.assert_array_equal(param.blob.data, values)
        np.testing.assert_array_equal(param.blob.diff, -values)
        assert np.shares_memory(param.blob.data, arena.data)
        assert np.shares_memory(param.blob.diff, arena.diff)
    assert arena.data.sum() == first.sum() + second.sum()  # nothing but params is in it
    assert arena.diff.sum() == -arena.data.sum()


def test_arena_lays_the_last_param_first_each_on_a_cache_line() -> None:
    params = [make_param(np.full(3, 1.0)), make_param(np.full(17, 2.0)), make_param(np.full(1, 3.0))]
    arena = Arena(params)
    per_line = ALIGNMENT_BYTES // 4
    assert arena.data[0] == 3
    assert (arena.data[per_line : per_line + 17] == 2).all()
    assert (arena.data[3 * per_line : 3 * per_line + 3] == 1).all()
    for param in params:
        assert param.blob.data.ctypes.data % ALIGNMENT_BYTES == 0
        assert param.blob.diff.ctypes.data % ALIGNMENT_BYTES == 0


def test_arena_moves_what_shares_a_param_too() -> None:
    owner, sharer = make_param(np.zeros((2, 2))), Blob((4,))
    sharer.share_data(owner.blob)
    sharer.share_diff(owner.blob)
    arena = Arena([owner])
    sharer.data[...] = 5
    sharer.diff[...] = 6
    assert (arena.data[:4] == 5).all()
    assert (arena.diff[:4] == 6).all()


def test_arena_extra_values_travel_before_the_diffs() -> None:
    arena = Arena([make_param(np.ones(3))], num_extra=2)
    arena.extra[...] = (7, 8)
    assert arena.reduced[:2].tolist() == [7, 8]
    assert arena.reduced.size == arena.diff.size + ALIGNMENT_BYTES // 4
    assert arena.reduced[arena.places[0]].tolist() == [-1, -1, -1]
    assert np.shares_memory(arena.reduced, arena.diff)


def test_arena_methods_give_the_newest_values_and_void_those_elsewhere() -> None:
    elsewhere = HostMemory()  # as an engine's own memory would be
    param = make_param(np.full(3, 1.0))
    arena = Arena([param], num_extra=1)
    place = arena.places[0]
    for write, read, take, flat, values in (
        (param.blob.write_data, param.blob.read_data, arena.update_data, arena.data, arena.data[:3]),
        (
            param.blob.write_diff,
            param.blob.read_diff,
            arena.update_reduced,
            arena.reduced,
            arena.reduced[place],
        ),
    ):
        write(elsewhere)[...] = 5
        assert take() is flat
        assert (values == 5).all()
        values[...] = 6
        assert (read(elsewhere) == 6).all()


def test_arena_elsewhere_takes_the_sums_of_the_extra_values_when_they_were_waited_for() -> None:
    arena = Arena(
        [make_param(np.ones(3))], num_extra=2, memory=HostMemory()
    )  # one that is not the host's own
    arena.extra[...] = (7, 8)
    arena.send_extra()
    seen = []

    def wait_for(is_over: Callable[[], bool]) -> None:
        seen.append((arena.extra.tolist(), is_over()))
        arena.reduced[:2] *= 2  # the sum of two ranks that tell the same

    arena.take_extra(wait_for)
    assert seen == [([7, 8], True)]
    assert arena.extra.tolist() == [14, 16]


def test_arena_clear_sets_diffs_and_extra_values_to_0_wherever_they_are() -> None:
    elsewhere = HostMemory()
    param = make_param(np.full(3, 1.0))
    arena = Arena([param], num_extra=1)
    arena.extra[...] = 9
    param.blob.write_diff(elsewhere)[...] = 5
    arena.clear()
    assert not arena.reduced.any()
    assert not param.blob.read_diff(elsewhere).any()
    assert (param.blob.data == 1).all()


def test_arena_clear_writes_the_diffs_of_the_array_only_when_it_is_asked_for() -> None:
    first, second = (Param(Blob((3,)), 0, k, "", None, None) for k in range(2))
    arena = Arena([first, second], num_extra=1)
    for param in (first, second):
        param.blob.write_diff()[...] = np.nan
    arena.clear()
    first.blob.add_to_diff(np.full(3, 4))
    assert np.nansum(arena.reduced) == 12
    assert np.isnan(arena.diff).sum() == 3
    assert arena.update_reduced().sum() == 12


def test_arena_cleared_has_zeros_where_backward_adds_nothing_and_sums_of_what_is_shared() -> None:
    shared = 'param { name: "w" } inner_product_param { num_output: 3 bias_term: false }'
    text = (
        inputs(x=(2, 3), z=(2, 3))
        + f"""
        layer {{ name: "ip1" type: "InnerProduct" bottom: "x" top: "a" {shared} }}
        layer {{ name: "ip2" type: "InnerProduct" bottom: "x" top: "b" {shared} }}
        layer {{ name: "ip3" type: "InnerProduct" bottom: "x" top: "c" inner_product_param {{ num_output: 1 }} }}
        layer {{ name: "none" type: "Silence" bottom: "c" }}
        layer {{ name: "sum" type: "Eltwise" bottom: "a" bottom: "b" top: "s" }}
        layer {{ name: "loss" type: "EuclideanLoss" bottom: "s" bottom: "z" top: "loss" }}"""
    )
    net = make_net(text)
    x, z = np.arange(6.0).reshape(2, 3), np.full((2, 3), 4.0)
    net.blobs["x"].data[...], net.blobs["z"].data[...] = x, z
    arena = Arena(net.param_table.with_gradients)
    params = [param.blob for param in net.learnable_params]
    assert [blob.shape for blob in params] == [(3, 3), (1, 3), (1,)]
    for _ in range(2):
        for blob in params:  # which nobody holds
            blob.write_diff()[...] = np.nan
        arena.clear()
        net.forward()
        net.backward()
        # s = 2·x·wᵀ with w = 0: ds = −z / 2, to each of the two
        expected = 2 * (-z / 2).T @ x
        np.testing.assert_allclose(params[0].read_diff(), expected, rtol=1e-6)
        assert arena.update_reduced().sum() == pytest.approx(expected.sum(), rel=1e-6)


def test_arena_of_no_params_has_the_extra_values_alone() -> None:
    arena = Arena([], num_extra=1)
    assert (arena.data.size, arena.diff.size, arena.reduced.size) == (0, 0, ALIGNMENT_BYTES // 4)


def test_swap_values_gives_each_array_the_other_s() -> None:
    left, right = np.arange(150_001.0), -np.arange(150_001.0)
    swap_values(left, right)
    np.testing.assert_array_equal(left, -np.arange(150_001.0))
    np.testing.assert_array_equal(right, np.arange(150_001.0))
