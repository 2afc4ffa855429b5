"""How a house rule ends: with nothing, or with one sentence for each problem and no traceback."""

from __future__ import annotations

from collections.abc import Iterable

import pytest


def expect_none(problems: Iterable[str]) -> None:
    """Fail the test with these sentences, a line each; return if there are none."""
    lines = "\n".join(problems)
    if lines:
        pytest.fail(lines, pytrace=False)
