"""Tests of core/solver/global_batch.py: the recipe that it makes, and runs that learn the same on any ranks."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from dtrain.core.engines import create_engine
from dtrain.core.errors import UserError
from dtrain.core.solver.global_batch import with_global_batch
from dtrain.core.solver.lockstep import digest_of
from dtrain.core.solver.recipe import Recipe, read_recipe
from dtrain.core.solver.solver import Solver
from dtrain.dist.communicator import Communicator
from tests.core.solver.ranks import WORLD_SIZES, OnRanks
from tests.core.solver.small_runs import TEST_BATCH_SIZE, Array, SmallRuns, params_of

BATCH_SIZE = 24
SECOND = """layer { name: "more" type: "HDF5Data" top: "more" include { phase: TRAIN }
  hdf5_data_param { source: "none" batch_size: %d } }"""


def sizes_of(recipe: Recipe) -> list[int]:
    """Return the batch sizes of the layers that read, of the train net and the first test net."""
    nodes = [*recipe.train.graph.nodes, *(recipe.tests[0].graph.nodes if recipe.tests else [])]
    messages = [getattr(node.param, f"{kind}_param") for node in nodes for kind in ("data", "hdf5_data")]
    return [message.batch_size for message in messages if message.HasField("batch_size")]


@pytest.mark.parametrize(
    ("world_size", "num_records", "size"),
    [(1, None, 24), (3, None, 8), (24, None, 1), (4, 100, 25), (1, 7, 7)],
)
def test_with_global_batch_divides_the_train_batch_alone(
    runs: SmallRuns, world_size: int, num_records: int | None, size: int
) -> None:
    recipe = read_recipe(runs.write("test_iter: 1 test_interval: 5", batch_size=BATCH_SIZE))
    divided = with_global_batch(recipe, world_size, num_records)
    assert sizes_of(divided) == [size, TEST_BATCH_SIZE]
    assert sizes_of(recipe) == [BATCH_SIZE, TEST_BATCH_SIZE]
    assert (digest_of(divided) == digest_of(recipe)) == (size == BATCH_SIZE)


def test_with_global_batch_of_two_reading_layers_divides_both(runs: SmallRuns) -> None:
    recipe = read_recipe(runs.write(batch_size=BATCH_SIZE, tail=SECOND % BATCH_SIZE))
    assert sizes_of(with_global_batch(recipe, 4)) == [6, 6]


@pytest.mark.parametrize(
    ("world_size", "num_records", "problem"),
    [
        (5, None, "{net}:2: layer \"data\": --global-batch: batch_size must be a multiple of the number of ranks, 5, "
            "got 24; give 20 or 25"),
        (3, 100, "--global-batch must be a multiple of the number of ranks, 3, got 100; give 99 or 102"),
        (8, 5, "--global-batch must be a multiple of the number of ranks, 8, got 5; give 8"),
    ],
)  # fmt: skip
def test_with_global_batch_that_does_not_divide_names_numbers_that_do(
    runs: SmallRuns, world_size: int, num_records: int | None, problem: str
) -> None:
    recipe = read_recipe(runs.write(batch_size=BATCH_SIZE))
    with pytest.raises(UserError) as caught:
        with_global_batch(recipe, world_size, num_records)
    assert str(caught.value) == problem.format(net=runs.folder / "run.prototxt")


def test_with_global_batch_of_layers_with_several_sizes_names_them(runs: SmallRuns) -> None:
    recipe = read_recipe(runs.write(batch_size=BATCH_SIZE, tail=SECOND % 6))
    with pytest.raises(UserError) as caught:
        with_global_batch(recipe, 2, 24)
    assert str(caught.value).startswith(
        "--global-batch: all layers that read records must have one batch_size, got: "
    )
    assert '"data" has 24; ' in str(caught.value)
    assert str(caught.value).endswith('"more" has 6')


def test_with_global_batch_of_a_net_that_reads_no_records_is_refused(tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(
        'layer { name: "x" type: "DummyData" top: "x" dummy_data_param { shape { dim: 4 } } }'
    )
    (tmp_path / "solver.prototxt").write_text('net: "net.prototxt" base_lr: 1 lr_policy: "fixed"')
    with pytest.raises(
        UserError, match=r"net.prototxt: --global-batch needs a layer in TRAIN that reads records"
    ):
        with_global_batch(read_recipe(str(tmp_path / "solver.prototxt")), 2, 8)


@pytest.mark.parametrize(
    ("extra", "lr_batch_size"),
    [("lr_scaling: LINEAR", 24 * 3), ("lr_scaling: SQRT lr_batch_size: 10", 10), ("", None)],
)
def test_with_global_batch_keeps_the_number_of_records_that_base_lr_is_for(
    runs: SmallRuns, extra: str, lr_batch_size: int | None
) -> None:
    recipe = read_recipe(runs.write(f"iter_size: 3 dtrain_param {{ {extra} }}", batch_size=BATCH_SIZE))
    found = with_global_batch(recipe, 2, 8).solver.dtrain_param
    assert (found.lr_batch_size if found.HasField("lr_batch_size") else None) == lr_batch_size


def train(
    path: str, num_iterations: int, start: Callable[[Solver], object] = lambda solver: None
) -> Callable[[Communicator], tuple[dict[str, Array], int]]:
    """Return the body that trains with a global batch and returns the params and the place in the data."""

    def body(communicator: Communicator) -> tuple[dict[str, Array], int]:
        recipe = with_global_batch(read_recipe(path), communicator.world_size)
        solver = Solver(recipe, engine=create_engine("reference"), communicator=communicator)
        with closing(solver):
            start(solver)
            solver.step(num_iterations)
            solver.snapshot()
            return params_of(solver), solver.net.reading_layers[0].position

    return body


@pytest.mark.parametrize("world_size", WORLD_SIZES)
def test_training_with_a_global_batch_learns_what_one_rank_learns_and_resumes_on_other_ranks(
    runs: SmallRuns, on_ranks: OnRanks, world_size: int
) -> None:
    options = {"batch_size": BATCH_SIZE, "shuffle": True, "transform": "crop_size: 6 mirror: true"}
    alone_path, path = (runs.write(name=name, **options) for name in ("alone", "several"))  # type: ignore[arg-type]
    params, position = on_ranks(1, train(alone_path, 10))[0]
    on_ranks(world_size, train(path, 4))
    on_ranks(1, train(path, 3, lambda solver: solver.restore(str(runs.state(4, "several")))))
    ended = on_ranks(world_size, train(path, 3, lambda solver: solver.restore(str(runs.state(7, "several")))))
    assert position == 10 * BATCH_SIZE
    for of_rank, position_of_rank in ended:
        assert position_of_rank == position
        for name, values in params.items():
            np.testing.assert_allclose(of_rank[name], values, rtol=1e-4, atol=1e-6, err_msg=name)
