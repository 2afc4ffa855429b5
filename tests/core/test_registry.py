from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from dtrain.core.errors import UserError
from dtrain.core.registry import Registry, import_members


@pytest.fixture
def fruits() -> Registry[int]:
    registry: Registry[int] = Registry("fruit")
    for name, number in (("Pear", 1), ("Apple", 2)):
        registry.register(name)(number)
    return registry


def test_registry_gives_its_members_by_name_and_lists_them_sorted(fruits: Registry[int]) -> None:
    assert fruits["Pear"] == 1
    assert list(fruits) == ["Apple", "Pear"]
    assert "Apple" in fruits
    assert "apple" not in fruits


def test_register_returns_what_it_enters() -> None:
    function = Registry("function").register("len")(len)
    assert function is len


def test_register_of_a_known_name_is_a_bug(fruits: Registry[int]) -> None:
    with pytest.raises(AssertionError, match="fruit 'Pear' is registered twice"):
        fruits.register("Pear")(3)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("Peer", 'unknown fruit "Peer"; did you mean "Pear"?; known: Apple, Pear'),
        ("Quince", 'unknown fruit "Quince"; known: Apple, Pear'),
    ],
)
def test_registry_of_an_unknown_name_names_the_nearest_and_all(
    fruits: Registry[int], name: str, problem: str
) -> None:
    with pytest.raises(UserError) as caught:
        fruits[name]
    assert caught.value.problems == (problem,)


def test_registry_imports_a_member_s_module_when_it_is_first_asked_for(
    fruits: Registry[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = "quince_of_test_registry"
    (tmp_path / f"{module}.py").write_text(
        "from market_of_test import FRUITS\nFRUITS.register('Quince')(3)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(sys.modules, "market_of_test", SimpleNamespace(FRUITS=fruits))
    fruits.register_module("Quince", module)
    assert "Quince" in fruits
    assert list(fruits) == ["Apple", "Pear", "Quince"]
    assert module not in sys.modules
    assert fruits["Quince"] == fruits["Quince"] == 3


def test_import_members_imports_each_module_of_a_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "orchard_of_test_registry"
    package.mkdir()
    for name in ("__init__", "pear", "apple"):
        (package / f"{name}.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    import_members(package.name, [str(package)])
    members = {f"{package.name}.{name}" for name in ("pear", "apple")}
    assert members <= sys.modules.keys()
