from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dtrain.core.errors import UserError
from dtrain.core.net.scores import Score
from dtrain.core.solver.testing import run_test_pass
from dtrain.dist.communicator import Communicator
from dtrain.dist.single import SingleCommunicator
from tests.core.net_builder import TEST, make_net
from tests.core.solver.ranks import UNDER_MPIRUN, WORLD_SIZES, OnRanks
from tests.core.solver.small_runs import (
    BATCH_NORM,
    NUM_CLASSES,
    NUM_RECORDS,
    RANDOM_DATA,
    TEST_BATCH_SIZE,
    Recorder,
    SmallRuns,
    opened,
    solve,
)

THREE_TOO = WORLD_SIZES if UNDER_MPIRUN else [2, 3, 4]
# One output that is drawn anew for each batch, and one that is no mean over the batch's records.
NOISE = """layer { name: "noise" type: "DummyData" top: "noise" include { phase: TEST }
  dummy_data_param { shape { dim: 2 } data_filler { type: "gaussian" } } }
layer { name: "squares" type: "Eltwise" bottom: "ip" bottom: "ip" top: "squares" include { phase: TEST }
  eltwise_param { operation: PROD } }"""
Tests = list[tuple[int, int, list[Score]]]


def train_and_test(path: str, num_iterations: int = 0) -> object:
    """Return the body that gives the tests that on_test was told of."""

    def body(communicator: Communicator) -> Tests:
        recorder = Recorder()
        with opened(path, communicator, recorder) as solver:
            solver.step(num_iterations)
            returned = solver.test_all()
            assert (
                returned == [scores for _, _, scores in recorder.tests[-len(returned) :]] or not returned[0]
            )
        return [(iteration, index, list(scores)) for iteration, index, scores in recorder.tests]

    return body


@pytest.mark.parametrize("world_size", THREE_TOO)
@pytest.mark.parametrize(
    "test_iter", [7, 1, 50]
)  # 50 batches of 3 go over the 100 records one and a half times
def test_test_pass_has_the_same_score_on_any_number_of_ranks_to_the_last_bit(
    runs: SmallRuns, world_size: int, test_iter: int, on_ranks: OnRanks
) -> None:
    path = runs.write(
        f"test_interval: 100 test_initialization: false test_iter: [{test_iter}, 2]",
        tail=NOISE,
        transform=RANDOM_DATA,
    )
    (alone,) = on_ranks(1, train_and_test(path))
    assert [(iteration, index) for iteration, index, _ in alone] == [(0, 0), (0, 1)]
    assert [len(scores) for _, _, scores in alone] == [1 + 1 + 2 + TEST_BATCH_SIZE * NUM_CLASSES] * 2
    for tests in on_ranks(world_size, train_and_test(path)):
        assert tests == alone


@pytest.mark.parametrize("world_size", THREE_TOO)
def test_test_nets_that_differ_have_the_same_scores_on_any_number_of_ranks_to_the_last_bit(
    runs: SmallRuns, world_size: int, on_ranks: OnRanks
) -> None:
    tail = NOISE.replace("phase: TEST", 'phase: TEST stage: "wide"')
    tail += """layer { name: "top" type: "ArgMax" bottom: "ip" top: "top" include { phase: TEST not_stage: "wide" }
      argmax_param { out_max_val: true } }"""
    states = 'test_state { stage: "wide" } test_state { } test_state { }'
    path = runs.write(
        f"test_interval: 100 test_initialization: false test_iter: [5, 7, 2] {states}",
        tail=tail,
        middle=BATCH_NORM,
    )

    on_ranks(1, solve(runs.write("max_iter: 3 snapshot: 3", name="trained", middle=BATCH_NORM)))

    def scores(communicator: Communicator) -> list[list[Score]]:
        with opened(path, communicator) as solver:
            solver.load_weights([str(runs.folder / "trained_iter_3.caffemodel")])
            return solver.test_all()

    (alone,) = on_ranks(1, scores)
    per_net = [2 + 2 + TEST_BATCH_SIZE * NUM_CLASSES, 2 + 2 * TEST_BATCH_SIZE, 2 + 2 * TEST_BATCH_SIZE]
    assert [len(of_net) for of_net in alone] == per_net
    assert on_ranks(world_size, scores) == [alone] * world_size


def test_test_pass_whose_outputs_change_their_size_is_refused(tmp_path: Path) -> None:
    for width in (6, 6, 7):
        Image.new("L", (width, 6)).save(tmp_path / f"{width}.png")
    (tmp_path / "list.txt").write_text("6.png 0\n6.png 0\n7.png 0\n")
    net = make_net(
        f"""layer {{ name: "data" type: "ImageData" top: "data" top: "label"
          image_data_param {{ source: "{tmp_path}/list.txt" batch_size: 1 is_color: false }} }}""",
        TEST,
    )
    with pytest.raises(UserError) as caught:
        run_test_pass(net, 3, None)
    net.close()
    assert str(caught.value).startswith(
        "testing: the outputs of a net must keep their sizes from batch to batch, got 43 values after 37; "
    )


def test_test_pass_is_the_mean_over_its_batches_from_the_first_record_on(runs: SmallRuns) -> None:
    path = runs.write("test_interval: 100 test_iter: 5")
    with opened(path, SingleCommunicator()) as solver:
        net = solver.test_nets[0]
        batches: list[tuple[int, list[float]]] = []
        scores, loss = run_test_pass(net, 5, None, lambda i, values: batches.append((i, values.tolist())))
        assert [index for index, _ in batches] == [0, 1, 2, 3, 4]
        # the same batches, one by one
        net.reading_layers[0].start()
        rows = []
        for _ in range(5):
            net_loss = net.forward()
            rows.append([float(net.blobs["accuracy"].data), float(net.blobs["loss"].data)])
            assert net_loss == pytest.approx(rows[-1][1])
    assert [values for _, values in batches] == rows
    means = np.mean(rows, axis=0)
    assert [(score.name, score.loss_weight) for score in scores] == [("accuracy", 0), ("loss", 1)]
    np.testing.assert_allclose([score.value for score in scores], means, rtol=1e-12)
    assert loss == pytest.approx(means[1])


def test_test_pass_starts_anew_each_time(runs: SmallRuns) -> None:
    path = runs.write("test_interval: 100 test_iter: 7", tail=NOISE, transform=RANDOM_DATA)
    with opened(path, SingleCommunicator()) as solver:
        assert solver.test_all() == solver.test_all()


def test_test_pass_sees_the_params_of_the_moment(runs: SmallRuns) -> None:
    path = runs.write(
        f"test_interval: 100 test_initialization: false test_iter: {NUM_RECORDS // TEST_BATCH_SIZE}"
    )
    with opened(path, SingleCommunicator()) as solver:
        before = {score.name: score.value for score in solver.test_all()[0]}
        solver.step(40)
        after = {score.name: score.value for score in solver.test_all()[0]}
    assert after["loss"] < before["loss"]
    assert after["accuracy"] > before["accuracy"]


@pytest.mark.parametrize("world_size", WORLD_SIZES)
def test_test_on_rank_0_gives_the_score_there_and_nothing_elsewhere(
    runs: SmallRuns, world_size: int, on_ranks: OnRanks
) -> None:
    fields = "test_interval: 100 test_initialization: false test_iter: 7"
    (expected,) = on_ranks(1, train_and_test(runs.write(fields, name="one")))
    path = runs.write(f"{fields} dtrain_param {{ test_on_rank_0: true }}")
    first, *others = on_ranks(world_size, train_and_test(path))
    assert first == expected
    assert all(tests == [] for tests in others)


def test_test_pass_between_iterations_does_not_change_the_training(runs: SmallRuns) -> None:
    quiet = runs.write("max_iter: 6", name="quiet")
    tested = runs.write("max_iter: 6 test_interval: 2 test_iter: 4", name="tested")
    losses = []
    for path in (quiet, tested):
        recorder = Recorder()
        with opened(path, SingleCommunicator(), recorder) as solver:
            solver.solve()
        losses.append(recorder.losses)
    assert losses[0] == losses[1]
