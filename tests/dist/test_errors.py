from __future__ import annotations

import pytest

from dtrain.dist.errors import AgreedFailure, ClusterError, LaunchError, exit_code_alone, exit_code_of

CODES = [
    (LaunchError("x"), 2),
    (ClusterError("x"), 3),
    (AgreedFailure("x"), 3),
    (AgreedFailure("x", exit_code=2), 2),
    (ValueError("x"), 1),
    (MemoryError(), 1),
    (KeyboardInterrupt(), 130),
    (SystemExit(7), 7),
    (SystemExit(0), 1),
    (SystemExit(), 1),
    (SystemExit("text"), 1),
    (SystemExit(256), 1),  # which the operating system would cut to 0
]


@pytest.mark.parametrize(("error", "code"), CODES, ids=repr)
def test_exit_code_of_any_exception_is_never_zero(error: BaseException, code: int) -> None:
    assert exit_code_of(error) == code


CODES_ALONE = [
    (LaunchError("x"), 3),
    (KeyboardInterrupt(), 130),
    (ClusterError("x"), 3),
    (ValueError("x"), 3),
    (MemoryError(), 3),
    (OSError(28, "full"), 3),
    (SystemExit(0), 3),
    (SystemExit(2), 3),
    (SystemExit(130), 3),
]


@pytest.mark.parametrize(("error", "code"), CODES_ALONE, ids=repr)
def test_exit_code_alone_is_the_clusters_but_for_an_interrupt(error: BaseException, code: int) -> None:
    assert exit_code_alone(error) == code


def test_agreed_failure_of_several_problems_prints_a_line_each() -> None:
    assert str(AgreedFailure("one", "two")) == "one\ntwo"
    assert AgreedFailure("one", "two").problems == ("one", "two")
