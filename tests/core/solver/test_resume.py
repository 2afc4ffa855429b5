"""A run that is stopped and taken up again goes the way of one that was not, to the last bit."""

from __future__ import annotations

import pytest

from dtrain.core.snapshots.manifest import read_manifest
from dtrain.core.solver.lr_policies import LR_POLICIES
from dtrain.core.solver.solver import Solver
from dtrain.core.solver.update_rules import UPDATE_RULES
from tests.core.solver.ranks import SEVERAL, UNDER_MPIRUN, OnRanks
from tests.core.solver.small_runs import BATCH_NORM, DROPOUT, RANDOM_DATA, SmallRuns, assert_same_bits, solve

TESTED = "test_interval: 2 test_iter: 2"
TYPES = {
    "SGD": "",
    "Nesterov": "",
    "AdaGrad": "momentum: 0",
    "RMSProp": "momentum: 0 base_lr: 0.001",
    "AdaDelta": "momentum: 0.95 delta: 1e-6",
    "Adam": "base_lr: 0.001",
    "AdamW": "base_lr: 0.001",
    "LARS": "dtrain_param { trust_coefficient: 0.1 }",
    "LAMB": "base_lr: 0.01",
}
OPTIONS = {
    "iter_size": "iter_size: 2",
    "ema": f"dtrain_param {{ ema_decay: 0.75 }} {TESTED}",
    "one_cycle": 'lr_policy: "one_cycle" dtrain_param { warmup_iter: 2 }',
    "cosine": 'lr_policy: "cosine"',
    "multistep": 'lr_policy: "multistep" gamma: 0.5 stepvalue: [2, 4, 8]',
    # every test after the first is no improvement
    "plateau": f'lr_policy: "plateau" gamma: 0.5 {TESTED} '
    'dtrain_param { plateau_patience: 2 monitor { output: "loss" min_delta: 100 } }',
    "keep_best": f'{TESTED} dtrain_param {{ keep_best: 2 keep_last: 3 monitor {{ output: "loss" }} }}',
    "early stopping": f"{TESTED} dtrain_param {{ early_stopping_patience: 3 ema_decay: 0.5 test_on_rank_0: true "
    'monitor { output: "accuracy" higher_is_better: true min_delta: 1 } }',
    "all": f'type: "LAMB" iter_size: 2 clip_gradients: 0.5 {TESTED} lr_policy: "plateau" gamma: 0.5 dtrain_param {{ '
    'ema_decay: 0.75 plateau_patience: 1 keep_best: 1 monitor { output: "loss" min_delta: 0.001 } }',
}
ROWS = {name: f'type: "{name}" {fields}' for name, fields in TYPES.items()} | OPTIONS
if UNDER_MPIRUN:  # what a type keeps is each rank's own, and test_exactness.py has each type there too
    ROWS = OPTIONS


@pytest.mark.parametrize("world_size", [1, SEVERAL])
@pytest.mark.parametrize("fields", ROWS.values(), ids=ROWS)
def test_restore_goes_on_as_if_it_had_never_stopped(
    runs: SmallRuns, world_size: int, fields: str, on_ranks: OnRanks
) -> None:
    path = runs.write(
        f"max_iter: 9 snapshot: 4 average_loss: 5 {fields}",
        middle=BATCH_NORM + DROPOUT,
        transform=RANDOM_DATA,
        shuffle=True,
        batch_size=4,
    )
    undisturbed = on_ranks(world_size, solve(path))
    resumed = on_ranks(world_size, solve(path, lambda solver: solver.restore(str(runs.state(4)))))
    for mine, theirs in zip(resumed, undisturbed, strict=True):
        assert mine.losses == theirs.losses[4:]
        assert mine.tests == [test for test in theirs.tests if test[0] >= 4]
        assert_same_bits(mine, theirs)


def test_resume_rows_have_every_type_and_every_policy_of_dtrain_s_own() -> None:
    assert sorted(TYPES) == list(UPDATE_RULES)
    of_caffe = {"exp", "fixed", "inv", "multistep", "poly", "sigmoid", "step"}
    assert set(OPTIONS) >= set(LR_POLICIES) - of_caffe


@pytest.mark.parametrize("world_size", [1, SEVERAL])
def test_restore_of_a_best_snapshot_does_not_count_its_test_twice(
    runs: SmallRuns, world_size: int, on_ranks: OnRanks
) -> None:
    # the best snapshot of iteration 3 is written after that iteration's test
    fields = 'test_interval: 3 test_iter: 20 dtrain_param { keep_best: 9 monitor { output: "loss" } }'
    path = runs.write(f"max_iter: 8 {fields}")
    undisturbed = on_ranks(world_size, solve(path))
    manifest = read_manifest(str(runs.state(3)).replace(".solverstate", ".manifest.json"))
    assert (manifest.is_best, manifest.is_due, manifest.monitor.last_test) == (True, False, 3)

    def take_up(solver: Solver) -> None:
        solver.restore(str(runs.state(3)))
        assert solver.monitor.state.best_iterations == (0, 3)

    resumed = on_ranks(world_size, solve(path, take_up))
    for mine, theirs in zip(resumed, undisturbed, strict=True):
        assert [iteration for iteration, _, _ in mine.tests] == [3, 6]
        assert mine.tests == theirs.tests[1:]
        assert_same_bits(mine, theirs)


@pytest.mark.parametrize("world_size", [1, SEVERAL])
def test_restore_of_a_best_snapshot_of_the_last_test_knows_nothing_of_the_last_loss(
    runs: SmallRuns, world_size: int, on_ranks: OnRanks
) -> None:
    # the last loss is shown before the test of iteration 4; its forward pass moves BatchNorm's statistics
    fields = (
        'display: 2 test_interval: 4 test_iter: 20 dtrain_param { keep_best: 9 monitor { output: "loss" } }'
    )
    undisturbed = on_ranks(
        world_size, solve(runs.write(f"max_iter: 8 {fields}", name="long", middle=BATCH_NORM))
    )
    on_ranks(world_size, solve(runs.write(f"max_iter: 4 {fields}", name="short", middle=BATCH_NORM)))
    path = runs.write(f"max_iter: 8 {fields}", name="again", middle=BATCH_NORM)
    resumed = on_ranks(world_size, solve(path, lambda solver: solver.restore(str(runs.state(4, "short")))))
    for mine, theirs in zip(resumed, undisturbed, strict=True):
        assert_same_bits(mine, theirs)
