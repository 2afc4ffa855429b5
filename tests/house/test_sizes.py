"""Files and functions stay small enough to be read in one go; the figures are printed beside the aims."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

import pytest

from tests.house.source_tree import Function, Source, parse
from tests.house.verdict import expect_none

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 50
AIMS = {"files": (110, 250), "functions": (6, 20)}  # median, 90th percentile


def num_lines(source: Source) -> int:
    """Return the number of a file's lines."""
    return len(source.text.splitlines())


def num_function_lines(function: Function) -> int:
    """Return the number of lines from def to the last one, docstring and nested functions included."""
    assert function.end_lineno is not None
    return function.end_lineno - function.lineno + 1


def find_large(source: Source) -> list[str]:
    """Return a sentence for the file if it is too long, and for each function that is."""
    problems = []
    if num_lines(source) > MAX_FILE_LINES:
        problems.append(
            f"{source.where(MAX_FILE_LINES + 1)}: a file must have at most {MAX_FILE_LINES} lines, "
            f"got {num_lines(source)}; split it along a seam that has a name"
        )
    problems += [
        f"{source.where(function.lineno)}: a function must have at most {MAX_FUNCTION_LINES} lines, "
        f"{function.name} has {num_function_lines(function)}; give its steps names of their own"
        for function in source.functions
        if num_function_lines(function) > MAX_FUNCTION_LINES
    ]
    return problems


def describe(kind: str, lines: Sequence[int]) -> str:
    """Return one line: how many there are, and their sizes beside the aims."""
    median, ninth = statistics.median(lines), statistics.quantiles(lines, n=10, method="inclusive")[-1]
    aims = AIMS[kind]
    return (
        f"{len(lines)} {kind}: median {median:.0f} lines (aim {aims[0]}), "
        f"90th percentile {ninth:.0f} (aim {aims[1]}), longest {max(lines)}"
    )


def test_sizes_of_every_module_are_within_the_limits(
    sources: list[Source], test_sources: list[Source]
) -> None:
    expect_none(problem for source in [*sources, *test_sources] for problem in find_large(source))


def test_sizes_of_the_sources_are_reported(sources: list[Source], report: Callable[[str], None]) -> None:
    functions = [num_function_lines(function) for source in sources for function in source.functions]
    report(describe("files", [num_lines(source) for source in sources]))
    report(describe("functions", functions))
    assert functions


@pytest.mark.parametrize(
    ("body_lines", "comment_lines", "problems_at"),
    [(49, 0, []), (50, 0, [1]), (1, 398, []), (1, 399, [401]), (50, 400, [401, 1])],
)
def test_find_large_of_an_example_names_each(
    body_lines: int, comment_lines: int, problems_at: list[int]
) -> None:
    text = "def f():\n" + "    pass\n" * body_lines + "#\n" * comment_lines
    places = [problem.split(": ")[0] for problem in find_large(parse("core/net.py", text))]
    assert places == [f"core/net.py:{line}" for line in problems_at]


def test_describe_of_one_to_eleven_gives_median_six_and_ninth_tenth_ten() -> None:
    line = describe("functions", range(1, 12))
    assert line == "11 functions: median 6 lines (aim 6), 90th percentile 10 (aim 20), longest 11"
