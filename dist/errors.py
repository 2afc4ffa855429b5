"""The errors of how ranks agree, each with the exit code that it ends the job with.

In the flow prototxt → graph → net → solver → communicator → snapshot these come from the communicator; the
launcher turns them into lines and exit codes.
"""

from __future__ import annotations

EXIT_BUG = 1
EXIT_USER = 2
EXIT_CLUSTER = 3
EXIT_STOPPED = 75  # EX_TEMPFAIL: requeue me
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells count


class LaunchError(Exception):
    """Report that the job was started in a way that cannot work; the user can mend it (exit code 2)."""

    exit_code = EXIT_USER


class ClusterError(Exception):
    """Report that ranks were lost or disagree (exit code 3)."""

    exit_code = EXIT_CLUSTER


class AgreedFailure(ClusterError):
    """Report a failure that all ranks know of: each raises it, at the same place, with the same content.

    Nobody waits for anybody when it is raised, so the job can end in order: rank 0 prints `problems`, and
    every rank exits with `exit_code`.

    Arguments:
        problems: the lines to print, once for the whole job.
        exit_code: what the job ends with; 2 where the failure is the user's mistake.
    """

    def __init__(self, *problems: str, exit_code: int = EXIT_CLUSTER) -> None:
        super().__init__(*problems)
        self.problems: tuple[str, ...] = problems
        self.exit_code = exit_code

    def __str__(self) -> str:
        return "\n".join(self.problems)


def exit_code_of(error: BaseException) -> int:
    """Return the exit code that `error` ends the job with, never 0.

    The exceptions of dtrain's folders carry theirs in the attribute `exit_code`; what carries none is a bug
    (1).
    """
    if isinstance(error, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    if isinstance(error, SystemExit):
        code = error.code
        return code if isinstance(code, int) and 0 < code < 256 else EXIT_BUG
    return int(getattr(error, "exit_code", EXIT_BUG))


def exit_code_alone(error: BaseException) -> int:
    """Return the exit code of a job of several ranks of which one alone ended by `error`.

    An interrupt keeps its own. Whatever else ends one rank and not the others, be it an exception in a user's layer,
    a damaged record, sys.exit or a full disk, may be that host's fault: the cluster's (3).
    """
    return EXIT_INTERRUPTED if isinstance(error, KeyboardInterrupt) else EXIT_CLUSTER
