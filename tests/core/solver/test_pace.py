from __future__ import annotations

import pytest

from dtrain.core.solver.pace import NUM_ITERATIONS, SILENCE_S, Pace
from dtrain.dist.meeting import Meeting
from dtrain.dist.threads import ThreadsCommunicator
from dtrain.dist.topology import topology_from_hosts


class Setting:
    """A rank 1 of 3 whose clock and waiting times a test sets."""

    def __init__(self) -> None:
        self.now = 100.0
        hosts = ["a", "b", "c"]
        self.communicator = ThreadsCommunicator(topology_from_hosts(hosts, 1), Meeting(3))
        self.pace = Pace(self.communicator, lambda: self.now)
        self.pace.lap()

    def iterate(self, work_s: float, waited_s: float, others_s: float, iteration: int = 7) -> None:
        """Let an iteration pass, of which the two other ranks work others_s each."""
        self.now += work_s + waited_s
        self.communicator.waited_s += waited_s
        assert self.pace.lap() == pytest.approx(work_s)
        self.pace.compare(work_s + 2 * others_s, iteration)


@pytest.fixture
def setting() -> Setting:
    return Setting()


def test_rank_that_is_ten_times_slower_is_named_after_a_few_iterations(
    setting: Setting, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(NUM_ITERATIONS - 1):
        setting.iterate(work_s=1, waited_s=0, others_s=0.1)
    assert not caplog.messages
    setting.iterate(work_s=1, waited_s=0, others_s=0.1, iteration=9)
    assert caplog.messages == [
        "rank 1 (b) is the straggler at iteration 9: an iteration takes it 1 s, the others, who wait, 0.1 s"
    ]


def test_straggler_is_named_again_only_after_a_while(
    setting: Setting, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(NUM_ITERATIONS + int(SILENCE_S) - 1):
        setting.iterate(work_s=1, waited_s=0, others_s=0.1)
    assert len(caplog.messages) == 1
    for _ in range(2):
        setting.iterate(work_s=1, waited_s=0, others_s=0.1)
    assert len(caplog.messages) == 2


@pytest.mark.parametrize(
    ("work_s", "waited_s", "others_s"),
    [(1, 0, 0.5), (0.1, 0.9, 1), (0.015, 0, 0.0001)],
    ids=["twice is no straggler", "who waits is none", "nor one of milliseconds"],
)
def test_rank_that_is_not_far_above_the_others_says_nothing(
    setting: Setting, caplog: pytest.LogCaptureFixture, work_s: float, waited_s: float, others_s: float
) -> None:
    for _ in range(10):
        setting.iterate(work_s, waited_s, others_s)
    assert not caplog.messages


def test_a_single_slow_iteration_says_nothing_and_restart_forgets(
    setting: Setting, caplog: pytest.LogCaptureFixture
) -> None:
    for k in range(10):
        setting.iterate(work_s=1 if k % 2 else 0.1, waited_s=0, others_s=0.1)
    setting.pace.restart()
    setting.now += 50
    assert setting.pace.lap() == 0
    assert not caplog.messages
