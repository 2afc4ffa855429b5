"""Steps that ranks take together: comparing what must be equal, and failing together if one of them fails.

In the flow prototxt → graph → net → solver → communicator → snapshot the stages up to the first iteration,
and the writing of snapshots, run under this guard. A failure outside of it is failure.py's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import TypeVar

from dtrain.dist.communicator import Communicator
from dtrain.dist.errors import EXIT_BUG, EXIT_CLUSTER, AgreedFailure, exit_code_of
from dtrain.dist.topology import Topology

T = TypeVar("T")

_OK = b""


def agree(communicator: Communicator, what: str, digest: bytes | str) -> None:
    """Check that `digest` is the same on all ranks. Collective.

    Arguments:
        what: what the digest stands for, such as "the solver" or "net train_val.prototxt".

    Raises:
        AgreedFailure: on every rank; names the ranks that differ from rank 0, and `what` (exit code 3).
    """
    own = digest.encode() if isinstance(digest, str) else digest
    digests = communicator.all_gather_bytes(own)
    differing = [rank for rank, other in enumerate(digests) if other != digests[0]]
    if differing:
        topology = communicator.topology
        ranks = ", ".join(topology.describe(rank) for rank in differing)
        raise AgreedFailure(
            f"{what} must be the same on all ranks, differs from {topology.describe(0)} on {ranks};"
            " give all ranks the same files and flags"
        )


def together(communicator: Communicator, action: Callable[[], T], catch: tuple[type[Exception], ...]) -> T:
    """Run `action` on every rank; return its result if it succeeded on all of them. Collective.

    `action` itself must make no collective call: a rank that fails would leave the others waiting in it.

    Arguments:
        catch: the exceptions that are expected, users' mistakes for instance. Others pass at once and
            unshared, for failure.end_job_on_failure to deal with. Where there is one rank only, these pass
            unchanged too.

    Raises:
        AgreedFailure: on every rank, if `action` raised one of `catch` on any of them. A text that all ranks
            gave is one problem; others are preceded by the ranks that gave them: ``rank 3 (node7): …``. The
            exit code is that of the lowest failing rank; 3, the cluster's, if only some ranks fail though all
            took the step: then their hosts differ, one lacks the data for instance. On failing ranks the
            rank's own exception is the cause.
    """
    return _share_failure(communicator, action, catch, communicator.world_size)


def on_rank_0(
    communicator: Communicator, action: Callable[[], T], catch: tuple[type[Exception], ...]
) -> T | None:
    """Run `action` on rank 0, for all; return its result there, None on the others. Collective.

    catch and Raises: as `together` has them, but that rank 0's exit code is the job's.
    """
    return _share_failure(communicator, lambda: action() if communicator.rank == 0 else None, catch, 1)


def _share_failure(
    communicator: Communicator,
    action: Callable[[], T],
    catch: tuple[type[Exception], ...],
    num_actors: int,
) -> T:
    """Run `action`; raise AgreedFailure on all ranks if it failed on any. num_actors: how many have work in it."""
    if communicator.world_size == 1:
        return action()
    own: Exception | None = None
    try:
        result = action()
    except catch as error:
        own = error
    _raise_if_any_failed(communicator, own, num_actors)  # always, if this rank failed
    return result


def _raise_if_any_failed(communicator: Communicator, own: Exception | None, num_actors: int) -> None:
    # The exit code as one character in front of the text; nothing at all means success. A file's name in the
    # text may hold what is no UTF-8.
    message = _OK if own is None else (chr(exit_code_of(own)) + _text(own)).encode(errors="backslashreplace")
    answers = [answer.decode() for answer in communicator.all_gather_bytes(message)]
    failed = {rank: answer for rank, answer in enumerate(answers) if answer}
    if failed:
        texts = {rank: answer[1:] for rank, answer in failed.items()}
        alike = len(failed) == num_actors
        exit_code = ord(next(iter(failed.values()))[0]) if alike else EXIT_CLUSTER
        raise AgreedFailure(*merge_texts(communicator.topology, texts), exit_code=exit_code) from own


def _text(error: Exception) -> str:
    """Return what `error` says; with its type if it is a bug or says nothing."""
    said = str(error)
    return f"{type(error).__name__}: {said}" if exit_code_of(error) == EXIT_BUG or not said else said


def merge_texts(topology: Topology, texts: dict[int, str]) -> list[str]:
    """Return the lines that report `texts`, each text once, in the order of the ranks that gave them.

    Arguments:
        texts: what the failing ranks say, by rank; a text of several lines has several problems.
    """
    ranks_of: dict[str, list[int]] = defaultdict(list)
    for rank, text in sorted(texts.items()):
        for line in text.splitlines():
            ranks_of[line].append(rank)
    return [_named(topology, ranks) + line for line, ranks in ranks_of.items()]


def _named(topology: Topology, ranks: list[int]) -> str:
    if len(ranks) == topology.world_size:
        return ""
    return ", ".join(topology.describe(rank) for rank in ranks) + ": "
