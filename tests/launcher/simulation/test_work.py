"""From a net to buckets and layers, counted by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from dtrain.launcher.simulation.work import Bucket, Costs, find_batch_size, make_buckets, make_work
from dtrain.proto import caffe_pb2
from tests.launcher.simulation.nets import DATA, build, dims, inner_product, loss

DATA_8X16 = DATA.format(data=dims(8, 16), target=dims(8, 16))
NO_COSTS = Costs((), ())
LINE = 64  # bytes: every param starts on a cache line, and the extra values take one


def solver_with(**fields: object) -> caffe_pb2.SolverParameter:
    return caffe_pb2.SolverParameter(dtrain_param=caffe_pb2.DtrainSolverParameter(**fields))


def test_make_buckets_puts_the_last_layers_first(tmp_path: Path) -> None:
    _, arena = build(
        tmp_path, DATA_8X16 + inner_product("a", "data", 16) + inner_product("b", "a", 16) + loss("b")
    )
    one = 4 * (16 * 16 + 16)  # weights and biases
    assert make_buckets(arena, solver_with()) == [Bucket(1, LINE + 2 * one)]
    assert make_buckets(arena, solver_with(bucket_bytes=one)) == [Bucket(2, LINE + one), Bucket(1, one)]


def test_make_buckets_of_a_shared_param_waits_for_its_first_layer(tmp_path: Path) -> None:
    shared = 'param { name: "w" } param { name: "b" }'
    layers = inner_product("a", "data", 16, shared) + inner_product("b", "a", 16, shared) + loss("b")
    _, arena = build(tmp_path, DATA_8X16 + layers)
    assert make_buckets(arena, solver_with()) == [Bucket(1, LINE + 4 * (16 * 16 + 16))]


def test_make_buckets_leaves_out_what_does_not_learn(tmp_path: Path) -> None:
    fixed = "param { lr_mult: 0 } param { lr_mult: 0 }"
    layers = inner_product("a", "data", 16, fixed) + inner_product("b", "a", 16) + loss("b")
    _, arena = build(tmp_path, DATA_8X16 + layers)
    assert make_buckets(arena, solver_with()) == [Bucket(2, LINE + 4 * (16 * 16 + 16))]


def test_make_buckets_of_a_net_that_learns_nothing_has_the_extra_values(tmp_path: Path) -> None:
    _, arena = build(tmp_path, DATA_8X16 + loss("data"))
    assert make_buckets(arena, solver_with()) == [Bucket(0, LINE)]


def test_make_work_takes_the_solvers_ways(tmp_path: Path) -> None:
    net, arena = build(tmp_path, DATA_8X16 + inner_product("a", "data", 16) + loss("a"))
    plain = make_work(net, arena, solver_with(), NO_COSTS)
    assert (plain.iter_size, plain.images, plain.wire_bytes) == (1, 8, 4)
    assert not plain.waits_for_all
    assert not plain.stale
    solver = solver_with(wire_precision="BFLOAT16", stale_gradients=True)
    solver.iter_size, solver.clip_gradients = 3, 10
    work = make_work(net, arena, solver, NO_COSTS)
    assert (work.iter_size, work.images, work.wire_bytes) == (3, 24, 2)
    assert work.waits_for_all
    assert work.stale


@pytest.mark.parametrize(("shape", "batch_size"), [((8, 16), 8), ((1, 3, 9, 9), 1)])
def test_find_batch_size_is_the_data_layers(tmp_path: Path, shape: tuple[int, ...], batch_size: int) -> None:
    text = DATA.format(data=dims(*shape), target=dims(*shape)) + loss("data")
    assert find_batch_size(build(tmp_path, text)[0]) == batch_size


def test_costs_add_up_a_pass() -> None:
    assert Costs((1.0, 2.0), (3.0, 4.0), 5.0, 6.0).pass_s == 10
