from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from dtrain.dist.errors import ClusterError
from dtrain.dist.meeting import Meeting


def test_meeting_swap_many_times_gives_values_in_rank_order() -> None:
    meeting = Meeting(3)

    def visit(rank: int) -> list[list[int]]:
        return [meeting.swap(rank, "count", 10 * turn + rank) for turn in range(200)]

    with ThreadPoolExecutor(3) as pool:
        for visits in pool.map(visit, range(3)):
            assert visits == [[10 * turn, 10 * turn + 1, 10 * turn + 2] for turn in range(200)]


def test_meeting_swap_of_differing_calls_fails_on_all_ranks() -> None:
    meeting = Meeting(2)
    with ThreadPoolExecutor(2) as pool:
        visits = [
            pool.submit(meeting.swap, rank, call, None) for rank, call in enumerate(["barrier", "all_reduce"])
        ]
        for visit in visits:
            with pytest.raises(
                ClusterError, match="^ranks disagree: rank 0 calls barrier, rank 1 calls all_reduce$"
            ):
                visit.result(10)


def test_meeting_end_releases_who_waits_and_who_comes_later() -> None:
    meeting = Meeting(3)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(meeting.swap, 0, "barrier", None)
        while meeting.state() == "no rank waits":
            pass
        assert meeting.state() == "rank 0 waits in barrier"
        meeting.end(2)
        with pytest.raises(ClusterError, match="^rank 2 has ended, rank 0 calls barrier$"):
            waiting.result(10)
    with pytest.raises(ClusterError, match="rank 2 has ended"):
        meeting.swap(1, "barrier", None)


def test_meeting_break_up_twice_keeps_the_first_reason() -> None:
    meeting = Meeting(2)
    meeting.break_up("first")
    meeting.break_up("second")
    with pytest.raises(ClusterError, match="^first$"):
        meeting.swap(0, "barrier", None)
