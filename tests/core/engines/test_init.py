from __future__ import annotations

import pytest

from dtrain.core.engines import ENGINES, FASTEST_FIRST, create_engine
from dtrain.core.errors import UserError


def test_create_engine_without_a_name_takes_the_fastest() -> None:
    assert create_engine().name == FASTEST_FIRST[0]


@pytest.mark.parametrize("name", list(ENGINES))
def test_create_engine_by_name_gives_a_new_one_of_that_name(name: str) -> None:
    engine = create_engine(name)
    assert engine.name == name
    assert create_engine(name) is not engine


def test_create_engine_of_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UserError, match='unknown engine "refrence".*known: .*reference'):
        create_engine("refrence")
