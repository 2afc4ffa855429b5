from __future__ import annotations

import numpy as np
import pytest

from dtrain.core.solver.loss_window import LossWindow
from dtrain.core.solver.place import (
    beginning_epoch,
    describe_place,
    epochs_done,
    go_to_iteration,
    go_to_place,
    warn_of_forgotten,
)
from dtrain.dist.communicator import Communicator
from dtrain.dist.single import SingleCommunicator
from tests.core.conftest import WriteModule
from tests.core.net_builder import inputs, make_net
from tests.core.solver.ranks import SEVERAL, OnRanks
from tests.core.solver.small_runs import NUM_RECORDS, RANDOM_DATA, SmallRuns, opened


def test_describe_place_says_how_far_all_ranks_have_read(runs: SmallRuns, on_ranks: OnRanks) -> None:
    path = runs.write("iter_size: 3", batch_size=20)

    def body(communicator: Communicator) -> None:
        with opened(path, communicator) as solver:
            solver.step(2)
            place = describe_place(solver.net, solver.losses, 2, current_step=4)
            num_read = 2 * 3 * 20 * SEVERAL
            assert (place.positions, place.batch_sizes) == ({"data": num_read}, {"data": 20})
            assert place.epoch == epochs_done(solver.net) == num_read // NUM_RECORDS
            assert (place.iteration, place.current_step, place.world_size) == (2, 4, SEVERAL)
            assert (place.seed, place.pass_index) == (3, 6)
            assert place.losses == tuple(solver.losses.losses)

    on_ranks(SEVERAL, body)


def test_epochs_done_of_a_net_that_reads_nothing_is_0() -> None:
    assert epochs_done(make_net(inputs(x=(1,)))) == 0


@pytest.mark.parametrize(
    ("position", "num_passes", "epoch"),
    [(0, 1, 0), (0, 13, 1), (0, 12, 0), (8, 1, None), (92, 1, None), (96, 1, 1), (100, 1, 1), (101, 1, None)],
)
def test_beginning_epoch_is_the_one_whose_first_record_comes_next(
    runs: SmallRuns, position: int, num_passes: int, epoch: int | None
) -> None:
    with opened(runs.write(batch_size=8), SingleCommunicator()) as solver:
        solver.net.reading_layers[0].start(position)
        assert beginning_epoch(solver.net, num_passes) == epoch


def test_beginning_epoch_of_a_net_that_reads_nothing_is_none() -> None:
    assert beginning_epoch(make_net(inputs(x=(1,))), 4) is None


def test_go_to_place_reads_draws_and_smooths_on_from_there(runs: SmallRuns) -> None:
    options = {"transform": RANDOM_DATA, "shuffle": True}
    fields = "test_iter: 2 test_interval: 100 test_initialization: false average_loss: 2"
    path = runs.write(fields, **options)  # type: ignore[arg-type]
    other_path = runs.write(f"{fields} random_seed: 99", name="other", **options)  # type: ignore[arg-type]
    with (
        opened(path, SingleCommunicator()) as one,
        opened(other_path, SingleCommunicator()) as other,
    ):
        one.step(3)
        losses = LossWindow(2)
        go_to_place(describe_place(one.net, one.losses, 3, 0), other.net, other.test_nets, losses)
        assert losses.losses == one.losses.losses
        for net in (one.net, other.net):
            net.forward()
        for name in ("data", "label"):
            np.testing.assert_array_equal(other.net.blobs[name].data, one.net.blobs[name].data)
        draws = [net.context.random.for_pass("any").random() for net in (one.net, other.net)]
        assert draws[0] == draws[1]
        # tests mirror at random too, by the run's seed
        for test_net in (one.test_nets[0], other.test_nets[0]):
            test_net.reading_layers[0].start()
            test_net.forward()
        np.testing.assert_array_equal(
            other.test_nets[0].blobs["data"].data, one.test_nets[0].blobs["data"].data
        )


def test_go_to_iteration_reads_on_where_so_many_batches_end(runs: SmallRuns) -> None:
    with opened(runs.write(batch_size=30), SingleCommunicator()) as solver:
        losses = LossWindow(3)
        losses.restart([1, 2])
        go_to_iteration(2, num_passes=3, net=solver.net, losses=losses)
        (layer,) = solver.net.reading_layers
        assert layer.position == 2 * 3 * 30
        assert solver.net.context.random.pass_index == 6
        assert losses.losses == []


LAYERS = """
import caffe

class Lost(caffe.Layer):
    def setup(self, bottom, top): pass
    def reshape(self, bottom, top): pass
    def forward(self, bottom, top): pass

class Kept(Lost):
    def get_state(self): return b""
    def set_state(self, state): pass
"""


def test_warn_of_forgotten_names_layers_that_begin_anew(
    write_module: WriteModule, caplog: pytest.LogCaptureFixture
) -> None:
    write_module("kept", LAYERS)
    net = make_net("""
        layer { name: "x" type: "Input" top: "x" top: "c"
          input_param { shape { dim: [4, 2, 3] } shape { dim: [4, 2] } } }
        layer { name: "lstm" type: "LSTM" bottom: "x" bottom: "c" top: "h" recurrent_param { num_output: 2 } }
        layer { name: "kept" type: "Python" python_param { module: "kept" layer: "Kept" } }
        layer { name: "lost" type: "Python" python_param { module: "kept" layer: "Lost" } }
    """)
    warn_of_forgotten(net)
    assert caplog.messages == [
        'net.prototxt:6: layer "lost": what its own code keeps (it has no get_state and set_state) is in no '
        "snapshot and begins anew"
    ]
