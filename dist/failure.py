"""What happens when a rank fails on its own: one line that says where and why, and the end of all ranks.

In the flow prototxt → graph → net → solver → communicator → snapshot the launcher wraps everything from the
making of the communicator on in `end_job_on_failure`. Without it the other ranks would wait for ever in their
next collective call; neither mpirun nor MPI notices a rank that raises or calls sys.exit. A rank that can't
say anything itself, since it was killed, stopped or is stuck, is supervisor.py's.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from dtrain.dist.activity import Activity
from dtrain.dist.claim import GRACE_S, Claim
from dtrain.dist.communicator import Communicator
from dtrain.dist.ending import Place, failure_line
from dtrain.dist.errors import EXIT_BUG, AgreedFailure, ClusterError, exit_code_alone, exit_code_of
from dtrain.dist.supervisor import announce_exit, launch_claim, leave, watched

log = logging.getLogger(__name__)

Say = Callable[[str], None]


@contextmanager
def end_job_on_failure(
    communicator: Communicator, activity: Activity, say: Say = log.error
) -> Iterator[None]:
    """End all ranks if the body of the `with` statement fails on this one. Not collective.

    - AgreedFailure, which all ranks raise alike: rank 0 says its problems, and it is raised again on every
      rank when that is done, for the caller to exit with its exit code.
    - Any other exception, SystemExit and KeyboardInterrupt included: the first rank of a host to fail says
      the line of `failure_line` (a bug's traceback before it), then the job is ended with
      exit_code_alone(exception): by the supervisor, if there is one, or else by MPI.
    - On a job of one rank every exception passes unchanged: nobody waits.

    Arguments:
        activity: what this rank is doing; the body keeps it up to date.
        say: prints one line; only a bug's traceback has several.
    """
    if communicator.world_size == 1:
        yield
        return
    try:
        yield
    except AgreedFailure as failure:
        _say_as_one(communicator, failure, say)
        raise
    except BaseException as error:
        _report_and_end(communicator, activity, error, launch_claim(), say)


def _say_as_one(communicator: Communicator, failure: AgreedFailure, say: Say) -> None:
    try:
        if communicator.rank == 0:
            for problem in failure.problems:
                say(problem)
    finally:  # the first rank to exit makes mpirun end the others: not before rank 0 has spoken
        announce_exit(failure.exit_code)
        communicator.barrier()


def _report_and_end(
    communicator: Communicator, activity: Activity, error: BaseException, claim: Claim, say: Say
) -> NoReturn:
    try:
        if isinstance(error, ClusterError) and watched():
            time.sleep(GRACE_S)  # it has lost another rank, whose own supervisor knows why
        if claim.take():
            _report_or_give_back(communicator, activity, error, claim, say)
        else:
            time.sleep(GRACE_S)
    finally:  # whatever becomes of the report, nobody may be left waiting
        if watched():
            leave(exit_code_alone(error))
        communicator.abort(exit_code_alone(error))


def _report_or_give_back(
    communicator: Communicator, activity: Activity, error: BaseException, claim: Claim, say: Say
) -> None:
    """Say the line; if that fails (no memory), leave it to the supervisor."""
    try:
        _report(communicator, activity, error, say)
    except BaseException:
        claim.give_back()
        raise
    announce_exit(exit_code_alone(error))


def _report(communicator: Communicator, activity: Activity, error: BaseException, say: Say) -> None:
    if isinstance(error, Exception) and exit_code_of(error) == EXIT_BUG:
        say("".join(traceback.format_exception(error)).rstrip())
    say(failure_line(place_of(communicator), str(activity), error))


def place_of(communicator: Communicator) -> Place:
    """Return which rank this is, and where."""
    return Place(communicator.rank, communicator.world_size, communicator.topology.host)
