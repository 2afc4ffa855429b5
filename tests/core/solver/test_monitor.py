from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import pytest
from google.protobuf import text_format

from dtrain.core.errors import UserError
from dtrain.core.net.net import Net
from dtrain.core.net.scores import Score
from dtrain.core.snapshots import Manifest, MonitorState
from dtrain.core.solver.monitor import Monitor
from dtrain.dist.communicator import Communicator
from dtrain.dist.single import SingleCommunicator
from dtrain.proto import caffe_pb2
from tests.core.net_builder import TEST, inputs, make_net
from tests.core.solver.ranks import SEVERAL, OnRanks

OUTPUTS = (
    inputs(x=(2, 3), label=(2,))
    + """
    layer { name: "l1" type: "SoftmaxWithLoss" bottom: "x" bottom: "label" top: "l1" }
    layer { name: "l2" type: "SoftmaxWithLoss" bottom: "x" bottom: "label" top: "l2" }
    layer { name: "accuracy" type: "Accuracy" bottom: "x" bottom: "label" top: "accuracy" }
    layer { name: "many" type: "TanH" bottom: "x" top: "many" }"""
)
ONE = (
    inputs(x=(2, 3), label=(2,))
    + '\nlayer { name: "accuracy" type: "Accuracy" bottom: "x" bottom: "label" top: "only" }'
)
NO_LOSS = ONE + '\nlayer { name: "many" type: "TanH" bottom: "x" top: "many" }'


def solver_of(options: str, policy: str = "fixed") -> caffe_pb2.SolverParameter:
    text = f'lr_policy: "{policy}" dtrain_param {{ {options} }}'
    return text_format.Parse(text, caffe_pb2.SolverParameter())


def make_monitor(options: str, policy: str = "fixed", nets: Sequence[Net] = ()) -> Monitor:
    nets = nets or [make_net(OUTPUTS, TEST)]
    return Monitor(solver_of(options, policy), nets, SingleCommunicator(), "solver.prototxt:7")


def enter(monitor: Monitor, iteration: int, score: float) -> bool:
    other = Score("other", -1e9, 0)
    return monitor.enter(iteration, [[other, Score(monitor.output, score, 1)]])


WATCHING = "early_stopping_patience: 3"


@pytest.mark.parametrize(
    ("text", "options", "output"),
    [
        (OUTPUTS, "", "l1"),  # the first that is a loss
        (OUTPUTS, 'output: "l2"', "l2"),
        (OUTPUTS, 'output: "accuracy" higher_is_better: true', "accuracy"),
        (ONE, "higher_is_better: true", "only"),  # the only one
    ],
)
def test_monitor_watches_the_output_that_it_is_told_or_a_loss(text: str, options: str, output: str) -> None:
    net = make_net(text, TEST)
    assert make_monitor(f"{WATCHING} monitor {{ {options} }}", nets=[net]).output == output


def test_monitor_watches_the_test_net_that_it_is_told() -> None:
    nets = [make_net(ONE, TEST), make_net(OUTPUTS, TEST)]
    monitor = make_monitor(f"{WATCHING} monitor {{ test_net: 1 }}", nets=nets)
    assert monitor.output == "l1"
    monitor.enter(0, [[Score("only", 1, 0)], [Score("l1", 5, 1)]])
    assert monitor.state.best == 5


@pytest.mark.parametrize(
    ("text", "options", "problem"),
    [
        (
            OUTPUTS,
            'output: "acuracy"',
            'monitor\'s output must be an output, got "acuracy"; did you mean "accuracy"?; '
            "the outputs of test net #0 are accuracy, l1, l2, many",
        ),
        (
            OUTPUTS,
            'output: "many"',
            'monitor\'s output must be a single value, got "many" of shape (2, 3); '
            "the outputs of test net #0 are accuracy, l1, l2, many",
        ),
        (
            OUTPUTS,
            'output: "accuracy"',
            'monitor\'s output "accuracy" is an accuracy: higher_is_better must be true, got false',
        ),
        (
            NO_LOSS,
            "",
            "monitor must name an output, as none of them is a loss; the outputs of test net #0 are many, only",
        ),
    ],
)
def test_monitor_of_an_output_that_cannot_be_is_refused(text: str, options: str, problem: str) -> None:
    with pytest.raises(UserError) as caught:
        make_monitor(f"{WATCHING} monitor {{ {options} }}", nets=[make_net(text, TEST)])
    assert caught.value.problems == (f"solver.prototxt:7: {problem}",)


def test_monitor_where_nothing_depends_on_the_tests_counts_nothing() -> None:
    monitor = make_monitor("", nets=[make_net(NO_LOSS, TEST)])
    assert not monitor.enter(1, [[Score("only", 5, 0)]])
    assert monitor.state == MonitorState()
    assert not monitor.has_given_up


@pytest.mark.parametrize(
    ("options", "scores", "is_best"),
    [
        ("", [5, 4, 4, 6, 3], [True, True, False, False, True]),
        ("higher_is_better: true", [5, 4, 5, 6, 7], [True, False, False, True, True]),
        ("min_delta: 1", [5, 4.5, 4, 3.5, 3], [True, False, True, False, True]),
        ("min_delta: 1 higher_is_better: true", [5, 5.5, 6, 6.5, 7], [True, False, True, False, True]),
        ("", [math.nan, 5, math.nan, 4], [False, True, False, True]),
        ("", [math.inf, math.inf, 1, -math.inf], [True, False, True, True]),
    ],
)
def test_enter_knows_the_best_so_far(options: str, scores: list[float], is_best: list[bool]) -> None:
    monitor = make_monitor(f"{WATCHING} monitor {{ {options} }}")
    assert [enter(monitor, 10 * k, score) for k, score in enumerate(scores)] == is_best
    best = [k for k, found in enumerate(is_best) if found]
    assert monitor.state.best_iterations == tuple(10 * k for k in best)
    assert monitor.state.best == scores[best[-1]]


def test_enter_of_a_test_that_was_counted_changes_nothing() -> None:
    monitor = make_monitor(WATCHING)
    assert enter(monitor, 5, 2.0)
    state = monitor.state
    assert not enter(monitor, 5, 1.0)
    assert monitor.state is state


def test_has_given_up_after_so_many_tests_without_a_better_one() -> None:
    monitor, seen = make_monitor("early_stopping_patience: 2"), []
    for iteration, score in enumerate([5, 6, 4, 4, 4, 3, 3, 3]):
        enter(monitor, iteration, score)
        seen.append(monitor.has_given_up)
    assert seen == [False, False, False, False, True, False, False, True]
    assert monitor.describe() == "l1 of test net #0 has not improved in 2 tests (best: 3 at iteration 5)"


def test_has_given_up_is_never_where_nobody_asks_for_it() -> None:
    monitor = make_monitor("keep_best: 1")
    for iteration in range(50):
        enter(monitor, iteration, 1.0)
    assert not monitor.has_given_up
    assert monitor.state.tests_since_best == 49


def test_plateau_is_left_after_so_many_tests_without_a_better_one(caplog: pytest.LogCaptureFixture) -> None:
    monitor, seen = make_monitor("plateau_patience: 2 early_stopping_patience: 9", "plateau"), []
    with caplog.at_level(logging.INFO):
        for iteration, score in enumerate([5, 5, 5, 5, 5, 4, 5, 3, 5, 5, 5]):
            enter(monitor, iteration, score)
            state = monitor.state
            seen.append((state.num_reductions, state.tests_since_change, state.tests_since_best))
    assert seen == [
        (0, 0, 0),
        (0, 1, 1),
        (1, 0, 2),  # begins to count anew after a reduction
        (1, 1, 3),
        (2, 0, 4),
        (2, 0, 0),
        (2, 1, 1),
        (2, 0, 0),
        (2, 1, 1),
        (3, 0, 2),
        (3, 1, 3),
    ]
    assert caplog.messages == [
        f"Plateau Status: Iteration {iteration}, step = {step}"
        for iteration, step in ((2, 1), (4, 2), (9, 3))
    ]


@pytest.mark.parametrize(("policy", "num_reductions"), [("plateau", 4), ("multistep", 0)])
def test_take_up_of_caffe_s_state_takes_current_step_for_the_reductions(
    policy: str, num_reductions: int
) -> None:
    monitor = make_monitor("keep_best: 1", policy)
    enter(monitor, 1, 5.0)
    monitor.take_up(None, 4)
    assert monitor.state == MonitorState(num_reductions=num_reductions)


def test_take_up_of_a_manifest_goes_on_from_its_counts() -> None:
    monitor, state = make_monitor("keep_best: 1", "plateau"), MonitorState(20, 1.5, (10,), 1, 1, 3)
    monitor.take_up(Manifest(20, 1, {}, {}, 0, 0, 9, (), 0, monitor=state), 9)
    assert monitor.state is state
    assert not enter(monitor, 20, 1.0)


def test_plateau_patience_does_nothing_with_another_policy() -> None:
    monitor = make_monitor("plateau_patience: 1 keep_best: 1", "step")
    for iteration in range(5):
        enter(monitor, iteration, 1.0)
    assert monitor.state.num_reductions == 0


@pytest.mark.parametrize("world_size", [1, SEVERAL])
def test_enter_of_a_test_on_rank_0_alone_tells_all_ranks_its_score(
    world_size: int, on_ranks: OnRanks
) -> None:
    solver = solver_of(f"{WATCHING} test_on_rank_0: true")

    def body(communicator: Communicator) -> MonitorState:
        monitor = Monitor(solver, [make_net(OUTPUTS, TEST)], communicator)
        for iteration, score in enumerate((3.0, 2.0, 2.5)):
            scores = [Score("l1", score, 1)] if communicator.rank == 0 else []
            monitor.enter(iteration, [scores])
        return monitor.state

    expected = MonitorState(2, 2.0, (0, 1), tests_since_best=1, tests_since_change=1)
    assert on_ranks(world_size, body) == [expected] * world_size
