"""What looks into a run from outside: debug_info, callbacks, and loops of one's own."""

from __future__ import annotations

import itertools
import logging

import pytest

from dtrain.dist.communicator import Communicator
from dtrain.dist.single import SingleCommunicator
from tests.core.solver.ranks import SEVERAL, OnRanks
from tests.core.solver.small_runs import SmallRuns, opened


def solve_alone(path: str) -> None:
    with opened(path, SingleCommunicator()) as solver:
        solver.solve()


def test_debug_info_is_logged_where_display_is_and_in_tests(
    runs: SmallRuns, caplog: pytest.LogCaptureFixture
) -> None:
    fields = "max_iter: 4 display: 2 test_interval: 4 test_initialization: false test_iter: 1"
    path = runs.write(f"{fields} debug_info: true")
    with caplog.at_level(logging.INFO):
        solve_alone(path)
    found = [
        message.split("]")[0].strip() + "]" for message in caplog.messages if message.startswith("    [")
    ]
    # in iterations 0 and 2 forward, backward and update; the last test, of another number of layers, forward
    kinds = [kind for kind, _ in itertools.groupby(found)]
    assert kinds == [
        "[Forward]",
        "[Backward]",
        "[Update]",
        "[Forward]",
        "[Backward]",
        "[Update]",
        "[Forward]",
    ]
    assert found.count("[Update]") == 2 * 4
    assert "    [Update] Layer conv, param 0 data: " in "\n".join(caplog.messages)
    norms = [message for message in caplog.messages if message.startswith("    [Backward] All net params")]
    assert len(norms) == 2


def test_debug_info_of_the_net_s_own_file_is_overruled_by_the_solver_s(
    runs: SmallRuns, caplog: pytest.LogCaptureFixture
) -> None:
    path = runs.write("max_iter: 1 display: 1")
    net = runs.folder / "run.prototxt"
    net.write_text("debug_info: true " + net.read_text())
    with caplog.at_level(logging.INFO):
        solve_alone(path)
    assert not any(message.startswith("    [") for message in caplog.messages)


@pytest.mark.parametrize("world_size", [1, SEVERAL])
def test_callbacks_are_called_before_the_first_forward_and_once_gradients_are_there(
    runs: SmallRuns, world_size: int, on_ranks: OnRanks
) -> None:
    path = runs.write("max_iter: 2 iter_size: 2")

    def body(communicator: Communicator) -> list[object]:
        with opened(path, communicator) as solver:
            seen: list[object] = []
            solver.net.callbacks.before_forward.append(lambda i: None if i else seen.append("forward"))
            solver.callbacks.append(
                (
                    lambda: seen.append(("start", solver.iter, bool(solver.arena.update_reduced().any()))),
                    lambda: seen.append(("ready", solver.iter, bool(solver.arena.update_reduced().any()))),
                )
            )
            solver.solve()
        return seen

    once = [("start", 0, False), "forward", "forward", ("ready", 0, True)]
    twice = [("start", 1, False), "forward", "forward", ("ready", 1, True)]
    assert on_ranks(world_size, body) == [once + twice] * world_size


@pytest.mark.parametrize("world_size", [1, SEVERAL])
def test_apply_update_takes_the_mean_of_all_ranks_gradients_off(
    runs: SmallRuns, world_size: int, on_ranks: OnRanks
) -> None:
    path = runs.write('base_lr: 0.5 lr_policy: "fixed" momentum: 0 weight_decay: 0')

    def body(communicator: Communicator) -> tuple[int, float]:
        with opened(path, communicator) as solver:
            solver.arena.clear()
            bias = solver.net.params["ip"][1]
            bias.diff[...] = communicator.rank
            solver.apply_update()
            return solver.iter, float(bias.data[0])

    assert on_ranks(world_size, body) == [(1, -0.5 * (world_size - 1) / 2)] * world_size
