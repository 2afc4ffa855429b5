from __future__ import annotations

import pytest

from dtrain.core.errors import ItemError, Problems, UserError


def test_user_error_as_text_has_one_line_for_each_problem() -> None:
    error = UserError("a.prototxt:1: x", "a.prototxt:2: y")
    assert error.problems == ("a.prototxt:1: x", "a.prototxt:2: y")
    assert str(error) == "a.prototxt:1: x\na.prototxt:2: y"


def test_problems_without_any_raises_nothing() -> None:
    Problems().raise_if_any()


def test_problems_with_some_raises_them_in_order_and_once_each() -> None:
    problems = Problems()
    for problem in ("second", "first", "second"):
        problems.add(problem)
    with pytest.raises(UserError) as caught:
        problems.raise_if_any()
    assert caught.value.problems == ("second", "first")


def test_item_error_keeps_the_items_place() -> None:
    error = ItemError("labels must be 0 to 2, got 7", item=3)
    assert error.problems == ("labels must be 0 to 2, got 7",)
    assert error.item == 3


def test_problems_collected_go_on_after_a_user_error_and_let_others_pass() -> None:
    problems = Problems()
    with problems.collected("net.prototxt: "):
        raise UserError("a", "b")
    with problems.collected():
        pass
    with pytest.raises(ZeroDivisionError), problems.collected():
        raise ZeroDivisionError
    with pytest.raises(UserError) as caught:
        problems.raise_if_any()
    assert caught.value.problems == ("net.prototxt: a", "net.prototxt: b")


def test_user_error_is_a_runtime_error_as_scripts_for_pycaffe_expect() -> None:
    with pytest.raises(RuntimeError, match="no such file"):
        raise UserError("net.prototxt: no such file")


def test_problems_keep_what_the_users_own_code_raised_first() -> None:
    problems, causes = Problems(), [None, ValueError("first"), KeyError("second")]
    for cause in causes:
        with problems.collected():
            raise UserError("a") from cause
    with pytest.raises(UserError) as caught:
        problems.raise_if_any()
    assert caught.value.__cause__ is causes[1]
