"""The error of what a rank reads: a user's mistake in a database, a record, an image or a parameter of them.

Everything in data/ raises it; the launcher prints it and exits with code 2.
"""

from __future__ import annotations


class DataError(Exception):
    """Report what is wrong with the data, a line for each mistake.

    Arguments:
        problem: one or more lines of the form ``where: thing must be rule, got value; fix``.
    """

    exit_code = 2

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem
