"""A small database, runs that train on it, and the ranks on which they do, for all tests of solvers."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from tests.core.solver import ranks
from tests.core.solver.numbered_records import NumberedRuns, write_records
from tests.core.solver.small_runs import SmallRuns, write_database

HERE = Path(__file__).parent


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Under mpirun keep the tests of this folder that run on several ranks; the others need no second process."""
    if ranks.UNDER_MPIRUN:
        alone = [item for item in items if item.path.is_relative_to(HERE) and not _is_on_several(item)]
        config.hook.pytest_deselected(items=alone)
        items[:] = [item for item in items if item not in alone]


def _is_on_several(item: pytest.Item) -> bool:
    if not isinstance(item, pytest.Function) or "on_ranks" not in item.fixturenames:
        return False
    return not hasattr(item, "callspec") or item.callspec.params.get("world_size") != 1


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Under mpirun end all processes when a test has failed on one."""
    report = yield
    if ranks.UNDER_MPIRUN and report.failed:
        ranks.end_all(f"{item.nodeid}\n{report.longreprtext}")
    return report


@pytest.fixture
def on_ranks() -> ranks.OnRanks:
    """Return the function that runs a body on each of several ranks."""
    return ranks.on_ranks


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the LMDB of write_database."""
    path = ranks.shared_path(tmp_path_factory.mktemp("database")) / "lmdb"
    if ranks.is_first():
        write_database(path)
    ranks.wait_for_all()
    return str(path)


@pytest.fixture
def runs(tmp_path: Path, database: str) -> SmallRuns:
    """Return the writer of the test's solver and net files."""
    return SmallRuns(ranks.shared_path(tmp_path), database)


@pytest.fixture(scope="session")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of write_records."""
    folder = ranks.shared_path(tmp_path_factory.mktemp("records"))
    if ranks.is_first():
        write_records(folder)
    ranks.wait_for_all()
    return folder


@pytest.fixture
def numbered(tmp_path: Path, records: Path) -> NumberedRuns:
    """Return the writer of the test's solver and net files."""
    return NumberedRuns(ranks.shared_path(tmp_path), records)
