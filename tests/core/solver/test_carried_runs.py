"""Runs whose layers carry a state from batch to batch: resumed bit for bit, tested alike on any number of ranks."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import pytest

from dtrain.core.errors import UserError
from dtrain.core.net.carried_state import take_states
from dtrain.core.net.scores import Score
from dtrain.core.snapshots import LayerState, load_snapshot
from dtrain.dist.communicator import Communicator
from dtrain.dist.errors import AgreedFailure
from dtrain.dist.single import SingleCommunicator
from dtrain.dist.threads import run_ranks
from tests.core.conftest import WriteModule
from tests.core.solver.numbered_records import NumberedRuns
from tests.core.solver.ranks import SEVERAL, WORLD_SIZES, OnRanks
from tests.core.solver.small_runs import DROPOUT, assert_same_bits, opened, solve

# Two steps of two streams a batch, which never end.
SEQUENCE = """
layer { name: "ones" type: "DummyData" top: "cont"
  dummy_data_param { shape { dim: 2 dim: 2 } data_filler { type: "constant" value: 1 } } }
layer { name: "steps" type: "Reshape" bottom: "h" top: "steps"
  reshape_param { shape { dim: 2 dim: 2 dim: -1 } } }"""
LAYER = """
layer {{ name: "{name}" type: "{kind}" bottom: "{bottom}" bottom: "cont" top: "{name}"
  recurrent_param {{ num_output: 6 weight_filler {{ type: "gaussian" std: 0.5 }} }} }}"""
ROWS = """
layer { name: "rows" type: "Reshape" bottom: "second" top: "rows" reshape_param { shape { dim: 4 dim: 6 } } }"""
TESTED = "test_interval: 2 test_iter: 5"
FIELDS = f"max_iter: 8 snapshot: 4 iter_size: 2 average_loss: 3 {TESTED}"


def write(numbered: NumberedRuns, solver: str = FIELDS, kinds: tuple[str, str] = ("LSTM", "RNN")) -> str:
    """Write a run with a recurrent layer of each kind, the second on top of the first."""
    first, second = (
        LAYER.format(name=name, kind=kind, bottom=bottom)
        for name, kind, bottom in (("first", kinds[0], "steps"), ("second", kinds[1], "first"))
    )
    middle = DROPOUT + SEQUENCE + first + second + ROWS
    return numbered.write("LMDB", solver, middle=middle, last="rows")


@pytest.mark.parametrize("world_size", [1, *WORLD_SIZES])
@pytest.mark.parametrize("kinds", [("LSTM", "LSTM"), ("RNN", "LSTM")])
def test_restore_with_recurrent_layers_goes_on_bit_for_bit(
    numbered: NumberedRuns,
    kinds: tuple[str, str],
    world_size: int,
    on_ranks: OnRanks,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = write(numbered, kinds=kinds)
    undisturbed = on_ranks(world_size, solve(path))
    with caplog.at_level(logging.WARNING):
        resumed = on_ranks(world_size, solve(path, lambda solver: solver.restore(numbered.state(4))))
    assert not [message for message in caplog.messages if "anew" in message]
    for mine, theirs in zip(resumed, undisturbed, strict=True):
        assert mine.losses == theirs.losses[4:]
        assert mine.tests == [test for test in theirs.tests if test[0] >= 4]
        assert_same_bits(mine, theirs)


def test_restore_takes_each_rank_s_own_state(numbered: NumberedRuns, on_ranks: OnRanks) -> None:
    path = write(numbered)

    def body(communicator: Communicator) -> list[LayerState]:
        with opened(path, communicator) as solver:
            solver.step(3)
            states = take_states(solver.net)
            where = solver.snapshot()
            solver.step(1)
            solver.keeper.finish()
            communicator.barrier()
            solver.restore(where)
            assert take_states(solver.net) == states
            return states

    ranks = on_ranks(SEVERAL, body)
    assert [len(states) for states in ranks] == [2] * SEVERAL
    assert len({tuple(states) for states in ranks}) == SEVERAL
    assert load_snapshot(numbered.state(3)).read_carried() == ranks


def states_after_restore(path: str, snapshot: str) -> Callable[[Communicator], list[bytes]]:
    """Return the body that gives the states that layers carry after a restore."""

    def body(communicator: Communicator) -> list[bytes]:
        with opened(path, communicator) as solver:
            solver.step(1)
            solver.restore(snapshot)
            return [state for _, state in take_states(solver.net)]

    return body


@pytest.mark.parametrize("num_ranks", [1, 3])
def test_restore_on_another_number_of_ranks_begins_states_anew_and_says_so(
    numbered: NumberedRuns, num_ranks: int, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(numbered)
    run_ranks(2, solve(path))
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        ranks = run_ranks(num_ranks, states_after_restore(path, numbered.state(4)))
    # h and c of the LSTM, h of the RNN
    assert ranks == [[bytes(2 * 2 * 6 * 4), bytes(2 * 6 * 4)]] * num_ranks
    said = [message for message in caplog.messages if "begins anew" in message]
    assert len(said) == 2 * num_ranks
    for name in ("first", "second"):
        end = (
            f': layer "{name}": what it carries from batch to batch begins anew: {numbered.state(4)} '
            f"is of 2 ranks, not {num_ranks}"
        )
        assert len([message for message in said if message.endswith(end)]) == num_ranks


def test_restore_of_a_snapshot_without_states_begins_them_anew_and_says_so(
    numbered: NumberedRuns, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(numbered)
    run_ranks(1, solve(path))
    for name in ("manifest.json", "carried"):  # what Caffe writes has neither
        (numbered.folder / f"run_iter_4.{name}").unlink()
    with caplog.at_level(logging.WARNING):
        ((lstm, rnn),) = run_ranks(1, states_after_restore(path, numbered.state(4)))
    assert not any(lstm + rnn)
    anew = [message for message in caplog.messages if "begins anew" in message]
    assert [message.rpartition(" begins anew: ")[2] for message in anew] == [
        f"{numbered.state(4)} does not have it"
    ] * 2


# -- tests -------------------------------------------------------------------------------------------------


def scores_of(path: str) -> Callable[[Communicator], list[list[list[Score]]]]:
    """Return the body that tests three times, after 0, 3 and 3 iterations; scores of all three."""

    def body(communicator: Communicator) -> list[list[list[Score]]]:
        with opened(path, communicator) as solver:
            first = solver.test_all()
            solver.step(3)
            return [first, solver.test_all(), solver.test_all()]

    return body


def test_test_pass_with_recurrent_layers_begins_with_a_state_of_zeros(numbered: NumberedRuns) -> None:
    path = write(numbered, "test_interval: 100 test_initialization: false test_iter: 5")
    (scores,) = run_ranks(1, scores_of(path))
    assert scores[1] == scores[2]
    assert scores[0] != scores[1]
    with opened(path, SingleCommunicator()) as solver:
        (net,) = solver.test_nets
        net.reading_layers[0].start()
        losses = [
            net.forward() for _ in range(5)
        ]  # as Caffe runs them: each batch goes on from the one before
        np.testing.assert_allclose(scores[0][0][0].value, np.mean(losses), rtol=1e-12)


@pytest.mark.parametrize("world_size", WORLD_SIZES)
def test_test_pass_with_recurrent_layers_has_the_same_score_on_any_number_of_ranks(
    numbered: NumberedRuns, world_size: int, on_ranks: OnRanks
) -> None:
    path = write(numbered, "test_interval: 100 test_initialization: false test_iter: [5, 1]")

    def body(communicator: Communicator) -> list[list[Score]]:
        with opened(path, communicator) as solver:
            return solver.test_all()

    (alone,) = on_ranks(1, body)
    assert alone[0] != alone[1]
    assert on_ranks(world_size, body) == [alone] * world_size


# -- Python layers -----------------------------------------------------------------------------------------

COUNTING = """
import caffe

class Growing(caffe.Layer):
    '''Multiplies by 1 + 0.01·passes, a number that no param holds.'''
    def setup(self, bottom, top): self.passes = 0
    def reshape(self, bottom, top): top[0].reshape(*bottom[0].shape)
    def forward(self, bottom, top):
        self.passes += 1
        top[0].data[...] = bottom[0].data * (1 + 0.01 * self.passes)
    def backward(self, top, propagate_down, bottom):
        bottom[0].diff[...] = top[0].diff * (1 + 0.01 * self.passes)

class Kept(Growing):
    def get_state(self): return b'%d' % self.passes
    def set_state(self, state): self.passes = int(state)

class FailingOnce(Kept):
    divisors = [0, 1]  # of the two ranks' instances, in this process
    def set_state(self, state): self.passes = int(state) // self.divisors.pop()
"""


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("name", ["Kept", "Growing"])
def test_restore_with_a_python_layer_goes_on_bit_for_bit_if_its_state_is_kept(
    numbered: NumberedRuns, name: str, world_size: int, write_module: WriteModule
) -> None:
    write_module("growing", COUNTING)
    middle = f"""layer {{ name: "grow" type: "Python" bottom: "h" top: "g"
      python_param {{ module: "growing" layer: "{name}" }} }}"""
    path = numbered.write("LMDB", "max_iter: 6 snapshot: 3", middle=middle, last="g")
    undisturbed = run_ranks(world_size, solve(path))
    resumed = run_ranks(world_size, solve(path, lambda solver: solver.restore(numbered.state(3))))
    for mine, theirs in zip(resumed, undisturbed, strict=True):
        if name == "Kept":
            assert mine.losses == theirs.losses[3:]
            assert_same_bits(mine, theirs)
        else:
            assert mine.losses != theirs.losses[3:]


def test_restore_with_a_python_layer_that_fails_on_one_rank_raises_on_all(
    numbered: NumberedRuns, write_module: WriteModule
) -> None:
    write_module("growing", COUNTING)
    middle = """layer { name: "grow" type: "Python" bottom: "h" top: "g"
      python_param { module: "growing" layer: "FailingOnce" } }"""
    path = numbered.write("LMDB", "max_iter: 3 snapshot: 3", middle=middle, last="g")
    run_ranks(2, solve(path))

    def body(communicator: Communicator) -> str:
        with opened(path, communicator) as solver, pytest.raises((UserError, AgreedFailure)) as caught:
            solver.restore(numbered.state(3))
        return str(caught.value)

    for message in run_ranks(2, body):
        assert 'layer "grow": FailingOnce.set_state raised ZeroDivisionError' in message
