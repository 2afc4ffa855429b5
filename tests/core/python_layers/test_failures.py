from __future__ import annotations

import logging
from pathlib import Path

import pytest

from dtrain.core.errors import UserError
from dtrain.core.python_layers import failures
from dtrain.core.python_layers.failures import UsersCode


def multiply(text: str) -> float:
    return float(text) * 2


class Users:
    def run(self, text: str) -> float:
        return multiply(text)


def line_of(marker: str) -> int:
    lines = Path(__file__).read_text().splitlines()
    return next(i for i, line in enumerate(lines, start=1) if marker in line)


def test_users_code_that_raises_is_told_by_what_was_raised_and_where() -> None:
    with pytest.raises(UserError) as caught, UsersCode("Users.run", Users):
        Users().run("two")
    cause = caught.value.__cause__
    assert isinstance(cause, ValueError)
    place = f"{__file__}:{line_of('return float(text)')}"
    assert str(caught.value) == f"Users.run raised ValueError: {cause} ({place})"


def test_users_code_that_raises_is_logged_with_its_own_frames_alone(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR), pytest.raises(UserError), UsersCode("Users.run", Users):
        Users().run("two")
    assert "Users.run failed:" in caplog.text
    assert "in multiply" in caplog.text
    assert "ValueError: could not convert" in caplog.text
    assert f'File "{failures.__file__}"' not in caplog.text
    assert "in test_users_code" not in caplog.text


def test_users_code_that_fails_in_a_librarys_file_is_told_by_the_users_line() -> None:
    class Reader:
        def run(self) -> str:
            return Path("/there/is/no/such").read_text()

    with pytest.raises(UserError) as caught, UsersCode("Reader.run", Reader):
        Reader().run()
    line = line_of('return Path("/there')
    assert str(caught.value).endswith(f"({__file__}:{line})")


def test_users_code_that_cannot_be_called_is_told_without_a_place() -> None:
    with pytest.raises(UserError) as caught, UsersCode("Users.run", Users):
        Users().run()  # type: ignore[call-arg]
    assert str(caught.value).startswith("Users.run raised TypeError: ")
    assert not str(caught.value).endswith(")")


def test_users_code_of_a_text_of_several_lines_is_one_line_with_the_hint() -> None:
    with pytest.raises(UserError) as caught, UsersCode("x", None, "; hint"):
        raise OSError("a\n  b")
    assert caught.value.problems == ("x raised OSError: a b; hint",)


def test_users_code_that_runs_out_of_data_is_told_too() -> None:
    with pytest.raises(UserError) as caught, UsersCode("x"):
        next(iter(()))
    assert str(caught.value) == "x raised StopIteration"


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_users_code_that_is_interrupted_or_exits_does(error: type[BaseException]) -> None:
    with pytest.raises(error), UsersCode("x"):
        raise error


def test_users_code_that_runs_through_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with UsersCode("x"):
        pass
    assert not caplog.records
