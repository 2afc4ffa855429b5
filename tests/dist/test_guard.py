from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from dtrain.dist.communicator import Communicator
from dtrain.dist.errors import AgreedFailure, ClusterError, LaunchError
from dtrain.dist.guard import agree, on_rank_0, together
from dtrain.dist.single import SingleCommunicator
from dtrain.dist.threads import run_ranks

HOSTS = ["n0", "n1", "n0", "n1"]


class Mistake(Exception):
    exit_code = 2


def failures(world_size: int, body: Callable[[Communicator], object]) -> list[AgreedFailure | None]:
    """Return the AgreedFailure of each rank, None for a rank that had none."""

    def caught(communicator: Communicator) -> AgreedFailure | None:
        try:
            body(communicator)
        except AgreedFailure as failure:
            return failure
        return None

    return run_ranks(world_size, caught, hosts=HOSTS[:world_size])


def raising(errors: Mapping[int, Exception]) -> Callable[[Communicator], object]:
    """Return a body that raises errors[rank] in `together` on the ranks that are named."""

    def body(communicator: Communicator) -> int:
        def action() -> int:
            if communicator.rank in errors:
                raise errors[communicator.rank]
            return communicator.rank

        return together(communicator, action, catch=(Mistake, ClusterError, ValueError))

    return body


def problems(body: Callable[[Communicator], object], world_size: int = 4) -> tuple[str, ...]:
    """Return the problems of `body`, which must be the same on every rank."""
    found = {failure.problems for failure in failures(world_size, body) if failure is not None}
    assert len(found) == 1
    assert None not in failures(world_size, body)
    return found.pop()


@pytest.mark.parametrize("world_size", [1, 2, 4])
@pytest.mark.parametrize("digest", ["text", b"\xff\x00", ""], ids=repr)
def test_agree_on_equal_digests_passes(world_size: int, digest: bytes | str) -> None:
    assert (
        failures(world_size, lambda communicator: agree(communicator, "the net", digest))
        == [None] * world_size
    )


def test_agree_on_differing_digests_names_the_ranks_on_every_rank() -> None:
    digests = ["x", "y", "x", "z"]
    found = problems(lambda communicator: agree(communicator, "the net", digests[communicator.rank]))
    assert found == (
        "the net must be the same on all ranks, differs from rank 0 (n0) on rank 1 (n1), rank 3 (n1);"
        " give all ranks the same files and flags",
    )


def test_agree_on_differing_digests_is_the_clusters_fault() -> None:
    found = failures(2, lambda communicator: agree(communicator, "the net", str(communicator.rank)))
    assert [failure.exit_code for failure in found if failure] == [3, 3]


def test_together_without_failure_gives_each_rank_its_result() -> None:
    assert run_ranks(4, raising({})) == [0, 1, 2, 3]


def test_together_failing_alike_on_all_ranks_gives_each_line_once() -> None:
    assert problems(raising({rank: Mistake("a.txt: x\na.txt: y") for rank in range(4)})) == (
        "a.txt: x",
        "a.txt: y",
    )


def test_together_failing_on_one_rank_names_it() -> None:
    assert problems(raising({3: Mistake("a.txt: missing")})) == ("rank 3 (n1): a.txt: missing",)


def test_together_failing_differently_gives_every_text_with_its_ranks() -> None:
    errors = {0: Mistake("a: x"), 1: Mistake("both\na: y"), 3: Mistake("both")}
    assert problems(raising(errors)) == (
        "rank 0 (n0): a: x",
        "rank 1 (n1), rank 3 (n1): both",
        "rank 1 (n1): a: y",
    )


@pytest.mark.parametrize(
    ("errors", "exit_code"),
    [
        ({rank: Mistake("x") for rank in range(4)}, 2),
        ({0: Mistake("x"), 1: ClusterError("y"), 2: ClusterError("y"), 3: ClusterError("y")}, 2),
        ({rank: ValueError("x") for rank in range(4)}, 1),
        ({0: Mistake("x")}, 3),  # hosts differ
        ({1: Mistake("x")}, 3),
        ({0: Mistake("x"), 1: Mistake("x"), 2: Mistake("x")}, 3),
    ],
)
def test_together_exits_on_every_rank_with_the_lowest_ranks_code_or_the_clusters(
    errors: dict[int, Exception], exit_code: int
) -> None:
    assert [failure.exit_code for failure in failures(4, raising(errors)) if failure] == [exit_code] * 4


@pytest.mark.parametrize(("error", "exit_code"), [(Mistake("x"), 2), (ValueError("x"), 1)])
def test_on_rank_0_failing_exits_on_every_rank_with_its_code(error: Exception, exit_code: int) -> None:
    def action() -> None:
        raise error

    found = failures(3, lambda communicator: on_rank_0(communicator, action, (Mistake, ValueError)))
    assert [(failure.exit_code, failure.problems[0][:8]) for failure in found if failure] == [
        (exit_code, "rank 0 (")
    ] * 3


def test_on_rank_0_runs_on_rank_0_alone() -> None:
    assert run_ranks(3, lambda communicator: on_rank_0(communicator, lambda: 7, ())) == [7, None, None]


def test_together_keeps_the_ranks_own_exception_as_cause() -> None:
    mistake = Mistake("x")
    found = failures(2, raising({1: mistake}))
    assert [failure.__cause__ for failure in found if failure] == [None, mistake]


@pytest.mark.parametrize(
    ("error", "problem"),
    [(ValueError("no é"), "ValueError: no é"), (ValueError(), "ValueError: "), (Mistake(), "Mistake: ")],
)
def test_together_of_a_bug_or_an_empty_text_names_the_type(error: Exception, problem: str) -> None:
    assert problems(raising({0: error, 1: error}), world_size=2) == (problem,)


def test_together_of_a_name_that_is_no_utf8_shows_it_escaped() -> None:
    assert problems(raising({1: Mistake("\udcff.txt: bad")}), world_size=2) == (
        "rank 1 (n1): \\udcff.txt: bad",
    )


def test_together_unexpected_exception_passes_unshared() -> None:
    with pytest.raises(LaunchError, match="unexpected"):
        run_ranks(2, raising({1: LaunchError("unexpected")}))


def test_together_on_one_rank_passes_its_own_exception() -> None:
    with pytest.raises(Mistake, match="^mine$"):
        raising({0: Mistake("mine")})(SingleCommunicator())
