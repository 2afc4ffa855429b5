"""Fixtures of the house rules: the parsed repository, read once, and lines of figures at the end of a run."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.house.source_tree import TEST_FOLDERS, Source, read_sources

FIGURES = pytest.StashKey[list[str]]()


@pytest.fixture(scope="session")
def sources() -> list[Source]:
    """Every module of dtrain that people write."""
    return read_sources()


@pytest.fixture(scope="session")
def test_sources() -> list[Source]:
    """Every module below tests/."""
    return read_sources(TEST_FOLDERS)


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Return a function that notes a line to be printed when the tests are done."""
    return request.config.stash.setdefault(FIGURES, []).append


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the noted lines."""
    for line in terminalreporter.config.stash.get(FIGURES, []):
        terminalreporter.write_line(line)
