"""The errors of what a rank computes: a user's mistakes, all in one exception.

Every stage of the flow prototxt → graph → net → solver → communicator → snapshot raises these; the launcher
prints each problem on a line of its own and exits with code 2.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class UserError(RuntimeError):
    """Report mistakes that the user can mend, each as one sentence.

    A RuntimeError, since that is what scripts for pycaffe catch where a file is missing or an array does not fit.

    Arguments:
        problems: one or more lines of the form ``where: thing must be rule, got value; fix``.
    """

    exit_code = 2  # what dist.errors.exit_code_of looks for

    def __init__(self, *problems: str) -> None:
        assert problems, "UserError needs at least one problem"
        super().__init__(*problems)
        self.problems: tuple[str, ...] = problems

    def __str__(self) -> str:
        return "\n".join(self.problems)


class ItemError(UserError):
    """Report a mistake in one item of a batch; whoever knows the batch's records adds which one it is.

    Arguments:
        problem: one line.
        item: the item's place in the batch, along axis 0.
    """

    def __init__(self, problem: str, item: int) -> None:
        super().__init__(problem)
        self.item = item


class Problems:
    """Collect mistakes while work goes on, so that the user sees all of them at once.

    cause: what the user's own code raised first, if it did, for the error's __cause__.
    """

    def __init__(self) -> None:
        self._found: list[str] = []
        self.cause: BaseException | None = None

    def add(self, problem: str) -> None:
        """Note one problem; one that was noted before is not repeated."""
        if problem not in self._found:
            self._found.append(problem)

    @contextmanager
    def collected(self, prefix: str = "") -> Iterator[None]:
        """Note the problems of a UserError that the with block raises, each with `prefix` in front, and go on."""
        try:
            yield
        except UserError as error:
            for problem in error.problems:
                self.add(prefix + problem)
            self.cause = self.cause or error.__cause__

    def raise_if_any(self) -> None:
        """Raise a UserError with every problem noted so far, in their order; return when there is none."""
        if self._found:
            raise UserError(*self._found) from self.cause


class MissingLibrary(UserError):
    """A library that an engine computes by is not installed."""
