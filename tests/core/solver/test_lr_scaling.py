"""Tests of core/solver/lr_scaling.py: the factor, and the rate of runs on several ranks."""

from __future__ import annotations

import logging
import math
from types import SimpleNamespace
from typing import Any

import pytest
from google.protobuf import text_format

from dtrain.core.errors import UserError
from dtrain.core.solver.lr_scaling import rate_factor
from dtrain.dist.communicator import Communicator
from dtrain.dist.single import SingleCommunicator
from dtrain.proto import caffe_pb2
from tests.core.solver.ranks import SEVERAL, OnRanks
from tests.core.solver.small_runs import SmallRuns, opened


def fake_net(world_size: int, *records_per_pass: int) -> Any:
    return SimpleNamespace(
        reading_layers=[SimpleNamespace(records_per_pass=count) for count in records_per_pass],
        context=SimpleNamespace(shard=SimpleNamespace(world_size=world_size)),
    )


def solver_of(extra: str, iter_size: int = 1) -> caffe_pb2.SolverParameter:
    return text_format.Parse(
        f"iter_size: {iter_size} dtrain_param {{ {extra} }}", caffe_pb2.SolverParameter()
    )


@pytest.mark.parametrize(
    ("extra", "iter_size", "net", "factor", "line"),
    [
        ("", 1, fake_net(8, 256), 1.0, ""),
        ("lr_scaling: NONE", 1, fake_net(8, 256), 1.0, ""),
        (
            *("lr_scaling: LINEAR", 3, fake_net(8, 256), 8.0),
            "8 (linear): an update takes the records of 8 ranks, base_lr is for those of 1",
        ),
        (
            *("lr_scaling: SQRT", 1, fake_net(9), 3.0),
            "3 (sqrt): an update takes the records of 9 ranks, base_lr is for those of 1",
        ),
        (
            *("lr_scaling: LINEAR lr_batch_size: 64", 2, fake_net(4, 128, 7), 4.0),
            "4 (linear): an update takes 256 records, base_lr is for 64",
        ),
        (
            *("lr_scaling: SQRT lr_batch_size: 512", 1, fake_net(4, 256), math.sqrt(0.5)),
            "0.707107 (sqrt): an update takes 256 records, base_lr is for 512",
        ),
    ],
)
def test_rate_factor_follows_the_records_of_an_update(
    extra: str, iter_size: int, net: Any, factor: float, line: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert rate_factor(solver_of(extra, iter_size), net) == factor
    assert caplog.messages == ([f"Learning rate times {line}"] if line else [])


def test_rate_factor_of_records_that_nobody_reads_is_refused() -> None:
    with pytest.raises(
        UserError, match=r"^dtrain_param.lr_batch_size must be left out where no layer .*, got 64$"
    ):
        rate_factor(solver_of("lr_scaling: LINEAR lr_batch_size: 64"), fake_net(4))


def test_training_on_several_ranks_scales_the_rate_by_its_own_ranks_also_when_resumed(
    runs: SmallRuns, on_ranks: OnRanks
) -> None:
    scaling = "dtrain_param { lr_scaling: LINEAR warmup_iter: 2 warmup_start_lr: 0.01 }"
    path = runs.write(f'base_lr: 0.05 lr_policy: "exp" gamma: 0.5 {scaling}')

    def train(communicator: Communicator) -> list[float]:
        rates = []
        with opened(path, communicator) as solver:
            for _ in range(4):
                rates.append(solver.learning_rate)
                solver.step(1)
            solver.snapshot()
        return rates

    target = SEVERAL * 0.05 * 0.5**2
    for rates in on_ranks(SEVERAL, train):
        assert rates == pytest.approx([0.01, (0.01 + target) / 2, target, target / 2], rel=1e-6)

    def resume(communicator: Communicator) -> float:
        with opened(path, communicator) as solver:
            solver.restore(str(runs.state(4)))
            return solver.learning_rate

    assert on_ranks(1, resume) == pytest.approx([0.05 * 0.5**4], rel=1e-6)


def test_training_with_the_rate_scaled_learns_as_with_that_base_lr(runs: SmallRuns) -> None:
    extra = "dtrain_param { lr_scaling: LINEAR lr_batch_size: 4 }"
    scaled = runs.write(f"base_lr: 0.02 {extra}", batch_size=8, name="scaled")
    plain = runs.write("base_lr: 0.04", batch_size=8, name="plain")
    losses = []
    for path in (scaled, plain):
        with opened(path, SingleCommunicator()) as solver:
            solver.step(5)
            losses.append(solver.smoothed_loss)
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
