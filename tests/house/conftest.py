"""Fixtures of the house rules: the parsed repository, read once."""

from __future__ import annotations

import pytest

from tests.house.source_tree import TEST_FOLDERS, Source, read_sources


@pytest.fixture(scope="session")
def sources() -> list[Source]:
    """Every module of dtrain that people write."""
    return read_sources()


@pytest.fixture(scope="session")
def test_sources() -> list[Source]:
    """Every module below tests/."""
    return read_sources(TEST_FOLDERS)
