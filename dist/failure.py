"""What happens when a rank fails on its own: one line that says where and why, and the end of all ranks.

In the flow prototxt → graph → net → solver → communicator → snapshot the launcher wraps everything from the
making of the communicator on in `end_job_on_failure`. Without it the other ranks would wait for ever in their
next collective call; neither mpirun nor MPI notices a rank that raises or calls sys.exit. A rank that is
killed is noticed, and named, by mpirun itself.
"""

from __future__ import annotations

import logging
import secrets
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from dtrain.dist.activity import Activity
from dtrain.dist.claim import GRACE_S, Claim
from dtrain.dist.communicator import Communicator
from dtrain.dist.errors import EXIT_BUG, AgreedFailure, exit_code_of

log = logging.getLogger(__name__)

Say = Callable[[str], None]


@dataclass(frozen=True)
class FailureReport:
    """Why and where a rank failed."""

    rank: int
    world_size: int
    host: str
    activity: str  # what str(Activity) gives
    cause: str

    def line(self) -> str:
        """Return the one line that is printed for the job."""
        return f"rank {self.rank} of {self.world_size} ({self.host}) failed {self.activity}: {self.cause}"


def cause_of(error: BaseException) -> str:
    """Return in one line why a rank failed; for a bug with the exception's type and where it was raised."""
    if isinstance(error, SystemExit):
        return f"sys.exit({error.code!r}) was called"
    if isinstance(error, KeyboardInterrupt):
        return "interrupted (SIGINT)"
    said = "; ".join(str(error).splitlines())
    if exit_code_of(error) != EXIT_BUG:
        return said
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}{': ' + said if said else ''}{place}"


@contextmanager
def end_job_on_failure(
    communicator: Communicator, activity: Activity, say: Say = log.error
) -> Iterator[None]:
    """End all ranks if the body of the `with` statement fails on this one. Entering it is collective.

    - AgreedFailure, which all ranks raise alike: rank 0 says its problems, and it is raised again on every
      rank when that is done, for the caller to exit with its exit code.
    - Any other exception, SystemExit and KeyboardInterrupt included: the first rank of a host to fail says
      the one line of FailureReport (a bug's traceback before it), then the job is aborted with
      exit_code_of(exception).
    - On a job of one rank every exception passes unchanged: nobody waits.

    Arguments:
        activity: what this rank is doing; the body keeps it up to date.
        say: prints one line; only a bug's traceback has several.
    """
    if communicator.world_size == 1:
        yield
        return
    claim = Claim(agreed_job_id(communicator))
    try:
        yield
    except AgreedFailure as failure:
        _say_as_one(communicator, failure, say)
        raise
    except BaseException as error:
        _report_and_abort(communicator, activity, error, claim, say)


def agreed_job_id(communicator: Communicator) -> str:
    """Return a random text that all ranks of this job share and no other job has. Collective."""
    return communicator.all_gather_bytes(secrets.token_hex(8).encode())[0].decode()


def _say_as_one(communicator: Communicator, failure: AgreedFailure, say: Say) -> None:
    try:
        if communicator.rank == 0:
            for problem in failure.problems:
                say(problem)
    finally:  # the first rank to exit makes mpirun end the others: not before rank 0 has spoken
        communicator.barrier()


def _report_and_abort(
    communicator: Communicator, activity: Activity, error: BaseException, claim: Claim, say: Say
) -> NoReturn:
    try:
        if claim.take():
            _report(communicator, activity, error, say)
        else:
            time.sleep(GRACE_S)
    finally:  # whatever becomes of the report, nobody may be left waiting
        communicator.abort(exit_code_of(error))


def _report(communicator: Communicator, activity: Activity, error: BaseException, say: Say) -> None:
    topology = communicator.topology
    report = FailureReport(topology.rank, topology.world_size, topology.host, str(activity), cause_of(error))
    if isinstance(error, Exception) and exit_code_of(error) == EXIT_BUG:
        say("".join(traceback.format_exception(error)).rstrip())
    say(report.line())
