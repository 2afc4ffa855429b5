"""The exchange: what is summed, when, in which buckets, and that none of it changes what is learned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dtrain.core.solver.extra_values import NUM_EXTRA
from dtrain.core.solver.gradient_exchange import buckets_of
from dtrain.dist.communicator import Communicator
from dtrain.dist.nccl import NcclCommunicator
from dtrain.dist.nccl_hierarchical import NcclHierarchicalCommunicator
from dtrain.dist.threads import run_ranks
from tests.core.solver.ranks import SEVERAL, WORLD_SIZES, OnRanks, is_first, wait_for_all
from tests.core.solver.small_runs import (
    BATCH_NORM,
    DROPOUT,
    Outcome,
    SmallRuns,
    assert_same_bits,
    opened,
    solve,
)
from tests.dist.played_sums import Between
from tests.played.cupy import play_cupy
from tests.played.nccl import join_nccl

# A layer that shares conv's weight, one that does not learn, and one between them
SHARED = """
layer { name: "conv2" type: "Convolution" bottom: "data" top: "h2" param { name: "w" } param { name: "b" }
  convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "conv3" type: "Convolution" bottom: "data" top: "h3" param { name: "w" } param { name: "b" }
  convolution_param { num_output: 4 kernel_size: 3 } }
layer { name: "sum" type: "Eltwise" bottom: "h2" bottom: "h3" top: "h4" }
layer { name: "frozen" type: "InnerProduct" bottom: "h4" top: "h5" param { lr_mult: 0 } param { lr_mult: 0 }
  inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
layer { name: "loss2" type: "SoftmaxWithLoss" bottom: "h5" bottom: "label" top: "loss2" }
"""
SOLVERS = {
    "plain": "",
    "two passes": "iter_size: 2",
    "clipped": "clip_gradients: 0.1",
    "by layer": 'type: "LARS"',
    "by element": 'type: "Adam" momentum2: 0.99',
}


def rewrite(path: Path, text: str) -> None:
    """Replace what the file at `path` holds, on one process of all."""
    wait_for_all()
    if is_first():
        path.write_text(text)
    wait_for_all()


def dtrain_param(fields: str) -> str:
    return f" dtrain_param {{ {fields} }}"


@pytest.mark.parametrize("fields", SOLVERS.values(), ids=SOLVERS)
def test_buckets_of_any_size_give_the_same_bits(runs: SmallRuns, fields: str, on_ranks: OnRanks) -> None:
    outcomes = [
        on_ranks(
            SEVERAL,
            solve(
                runs.write(
                    f"max_iter: 6 {fields}{dtrain_param(f'ordered_sums: true bucket_bytes: {num_bytes}')}",
                    name=f"buckets{num_bytes}",
                    middle=DROPOUT + BATCH_NORM,
                    tail=SHARED,
                )
            ),
        )[0]
        for num_bytes in (1, 200, 1 << 20)
    ]
    for outcome in outcomes[1:]:
        assert_same_bits(replace(outcome, learning_rate=outcomes[0].learning_rate), outcomes[0])


def test_backward_of_lower_layers_goes_on_while_buckets_of_upper_ones_are_summed(
    runs: SmallRuns, on_ranks: OnRanks
) -> None:
    path = runs.write("max_iter: 2 iter_size: 2" + dtrain_param("bucket_bytes: 1"))

    def body(communicator: Communicator) -> list[tuple[str, bool]]:
        with opened(path, communicator) as solver:
            seen: list[tuple[str, bool]] = []
            names = solver.net.layer_names
            solver.net.callbacks.before_backward.append(
                lambda i: seen.append((names[i], solver.exchange.has_begun))
            )
            solver.solve()
        return [entry for entry in seen if entry[0] in ("ip", "conv")]

    first_pass, last_pass = [("ip", False), ("conv", False)], [("ip", False), ("conv", True)]
    assert on_ranks(SEVERAL, body) == [(first_pass + last_pass) * 2] * SEVERAL


def test_buckets_hold_what_learns_and_the_frozen_only_for_the_norm(
    runs: SmallRuns, on_ranks: OnRanks
) -> None:
    path = runs.write("", tail=SHARED)

    def body(communicator: Communicator) -> list[list[str]]:
        with opened(path, communicator) as solver:
            solver.param.dtrain_param.bucket_bytes = 1
            assert solver.arena.reduced.size - solver.arena.diff.size >= NUM_EXTRA
            return [
                [f"{param.layer_name}.{param.index}" for param in b]
                for b in buckets_of(solver.arena, solver.param)
            ]

    expected = [["conv2.1"], ["conv2.0"], ["ip.0"], ["ip.1"], ["conv.1"], ["conv.0"]]
    assert on_ranks(1, body)[0] == expected


def test_frozen_params_keep_each_ranks_own_gradient_unless_it_counts_in_the_norm(
    runs: SmallRuns, on_ranks: OnRanks
) -> None:
    fields = {"free": "", "clipped": "clip_gradients: 1e9"}
    paths = [runs.write(fields[name], name=name, tail=SHARED) for name in fields]
    for name in fields:
        net = runs.folder / f"{name}.prototxt"
        rewrite(net, "force_backward: true\n" + net.read_text())

    def body(communicator: Communicator) -> tuple[float, ...]:
        sums = []
        for path in paths:
            with opened(path, communicator) as solver:
                solver.arena.clear()
                bias = solver.net.params["frozen"][1]
                bias.diff[...] = communicator.rank
                solver.apply_update()
                sums.append(float(bias.diff[0]))
        return tuple(sums)

    in_all = SEVERAL * (SEVERAL - 1) / 2
    assert on_ranks(SEVERAL, body) == [(float(rank), in_all) for rank in range(SEVERAL)]


@pytest.mark.parametrize(("precision", "bound"), [("BFLOAT16", 2e-2), ("FLOAT16", 2e-3)])
def test_wire_of_16_bits_learns_nearly_the_same(
    runs: SmallRuns, precision: str, bound: float, on_ranks: OnRanks
) -> None:
    exact, rounded = (
        on_ranks(
            SEVERAL, solve(runs.write("max_iter: 10" + dtrain_param(f"wire_precision: {each}"), name=each))
        )
        for each in ("FLOAT32", precision)
    )
    assert all(
        np.array_equal(rounded[0].params[name], other.params[name])
        for other in rounded
        for name in other.params
    )
    differ = False
    for name, values in exact[0].params.items():
        np.testing.assert_allclose(rounded[0].params[name], values, atol=bound * np.abs(values).max())
        differ = differ or not np.array_equal(rounded[0].params[name], values)
    assert differ


LINEAR = """
layer { name: "ones" type: "DummyData" top: "x" top: "y" dummy_data_param {
  shape { dim: 1 dim: 2 } shape { dim: 1 dim: 1 } data_filler { value: 1 } data_filler { value: 3 } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "p" inner_product_param { num_output: 1 bias_term: false } }
layer { name: "loss" type: "EuclideanLoss" bottom: "p" bottom: "y" top: "loss" }
"""


@pytest.mark.parametrize("world_size", [1, *WORLD_SIZES])
def test_stale_gradients_are_those_of_the_params_before(
    runs: SmallRuns, world_size: int, on_ranks: OnRanks
) -> None:
    """With p = w·(1, 1), loss (p − 3)²/2 and gradient p − 3 in both elements, momentum 0."""
    path = runs.write(
        'base_lr: 0.1 lr_policy: "fixed" momentum: 0 weight_decay: 0 max_iter: 5'
        + dtrain_param("stale_gradients: true")
    )

    rewrite(runs.folder / "run.prototxt", LINEAR)

    def body(communicator: Communicator) -> list[float]:
        weights = []
        with opened(path, communicator) as solver:
            solver.net.callbacks.before_forward.append(
                lambda i: None if i else weights.append(float(solver.net.params["ip"][0].data[0, 0]))
            )
            solver.solve()
            weights.append(float(solver.net.params["ip"][0].data[0, 0]))
        return weights

    w = [0.0, 0.0]  # before iterations 0 and 1: nothing has arrived
    for k in range(3):
        w.append(w[-1] - 0.1 * (2 * w[k] - 3))
    late = w[-1] - 0.1 * (2 * w[3] - 3)
    w.append(
        late - 0.1 * (2 * w[4] - 3)
    )  # at the end the last two gradients are applied, one late, one settled
    for got in on_ranks(world_size, body):
        np.testing.assert_allclose(got, w, rtol=1e-6)


def test_stale_run_goes_on_from_its_snapshot_bit_for_bit(runs: SmallRuns, on_ranks: OnRanks) -> None:
    path = runs.write("max_iter: 12 snapshot: 5 average_loss: 3" + dtrain_param("stale_gradients: true"))
    undisturbed = on_ranks(SEVERAL, solve(path))
    resumed: list[Outcome] = on_ranks(SEVERAL, solve(path, lambda solver: solver.restore(str(runs.state(5)))))
    for mine, theirs in zip(resumed, undisturbed, strict=True):
        assert mine.losses == theirs.losses[5:]
        assert_same_bits(mine, theirs)


def test_layer_that_a_rank_skips_counts_there_with_no_gradient(runs: SmallRuns, on_ranks: OnRanks) -> None:
    path = runs.write(
        'base_lr: 0.5 lr_policy: "fixed" momentum: 0 weight_decay: 0' + dtrain_param("bucket_bytes: 1")
    )

    def body(communicator: Communicator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        with opened(path, communicator) as solver:
            conv = solver.net.layer_names.index("conv")
            weight, gradients = solver.net.params["conv"][0], []
            solver.net.callbacks.after_backward.insert(
                0, lambda i: gradients.append(weight.diff.copy()) if i == conv else None
            )
            if communicator.rank == 0:
                solver.net.layers[conv].backward = lambda *arguments: None  # type: ignore[method-assign]
            before = weight.data.copy()
            solver.step(1)
            return before, weight.data.copy(), gradients[0]

    ranks = on_ranks(SEVERAL, body)
    assert not ranks[0][2].any()
    mean = np.mean([gradient for _, _, gradient in ranks], axis=0)
    assert mean.any()
    for before, after, _ in ranks:
        np.testing.assert_allclose(after, before - 0.5 * mean, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "fields", ["ordered_sums: true", "", "stale_gradients: true", "wire_precision: BFLOAT16"]
)
def test_gpus_of_two_hosts_learn_the_same_by_way_of_the_hosts(
    runs: SmallRuns, monkeypatch: pytest.MonkeyPatch, fields: str
) -> None:
    join_nccl(monkeypatch, play_cupy(monkeypatch, num_devices=2))
    path = runs.write("max_iter: 4 iter_size: 2" + dtrain_param(f"bucket_bytes: 256 {fields}"))
    body, between = solve(path, engine="cupy"), Between()

    def train(join: Callable[[Communicator], Communicator]) -> list[Outcome]:
        return run_ranks(3, lambda host: body(join(host)), hosts=["a", "a", "b"])

    by_host = train(lambda host: NcclHierarchicalCommunicator(host, between=between.make))
    for mine, theirs in zip(by_host, train(NcclCommunicator), strict=True):
        if "ordered" in fields:
            assert_same_bits(mine, theirs)
        for name, values in mine.params.items():
            np.testing.assert_array_equal(values, by_host[0].params[name])
            np.testing.assert_allclose(values, theirs.params[name], rtol=1e-2, atol=1e-3, err_msg=name)
    assert between.sent[0]
