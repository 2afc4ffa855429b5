"""How many threads a rank gets, from tables of machines, and what is set in the environment."""

from __future__ import annotations

import os

import pytest

from dtrain.launcher.threads import (
    THREAD_VARIABLES,
    fair_num_threads,
    set_num_threads,
    thread_settings,
    usable_cores,
)


@pytest.mark.parametrize(
    ("usable", "available", "ranks", "expected"),
    [
        (8, 8, 1, 8),  # alone
        (8, 8, 4, 2),  # unbound ranks share
        (8, 8, 3, 2),  # what does not divide is left free
        (1, 2, 2, 1),  # mpirun has bound each of two ranks to a core: not divided twice
        (1, 64, 2, 1),
        (32, 64, 4, 16),  # bound to a socket that two ranks share
        (2, 2, 8, 1),  # more ranks than cores
        (8, 16, 1, 8),  # one rank, bound to half of the cores
    ],
)
def test_fair_num_threads_on_a_machine_shares_cores_once(
    usable: int, available: int, ranks: int, expected: int
) -> None:
    assert fair_num_threads(usable, available, ranks) == expected


def test_usable_cores_of_this_process_is_its_affinity() -> None:
    assert usable_cores() == len(os.sched_getaffinity(0))


def test_usable_cores_of_no_process_is_all_processors() -> None:
    assert usable_cores(2**22 + 1) == os.cpu_count()


def set_by(environment: dict[str, str], num_threads: int) -> dict[str, str]:
    settings = thread_settings(environment, num_threads)
    return {name: value for name, value in settings.items() if name in THREAD_VARIABLES}


def test_thread_settings_without_users_wishes_sets_all() -> None:
    assert set_by({}, 3) == dict.fromkeys(THREAD_VARIABLES, "3")


def test_thread_settings_with_omp_set_by_user_follows_it() -> None:
    expected = {"OPENBLAS_NUM_THREADS": "5", "MKL_NUM_THREADS": "5"}
    assert set_by({"OMP_NUM_THREADS": "5"}, 3) == expected


def test_thread_settings_with_blas_set_by_user_leaves_it() -> None:
    expected = {"OMP_NUM_THREADS": "3", "MKL_NUM_THREADS": "3"}
    assert set_by({"OPENBLAS_NUM_THREADS": "5"}, 3) == expected


def test_thread_settings_in_a_child_of_dtrain_are_made_anew() -> None:
    parent = {"MKL_NUM_THREADS": "7", **thread_settings({"MKL_NUM_THREADS": "7"}, 8)}
    assert set_by(parent, 2) == {"OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"}


def test_set_num_threads_for_one_of_many_ranks_sets_one() -> None:
    environment = {
        "OMPI_COMM_WORLD_RANK": "0",
        "OMPI_COMM_WORLD_SIZE": "4096",
        "OMPI_COMM_WORLD_LOCAL_SIZE": "4096",
    }
    set_num_threads(environment)
    assert {environment[name] for name in THREAD_VARIABLES} == {"1"}
