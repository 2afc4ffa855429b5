"""What is set in the environment for how many threads, and what is said about it."""

from __future__ import annotations

import pytest

from dtrain.dist.cores import own_share
from dtrain.launcher.threads import THREAD_VARIABLES, describe_threads, set_num_threads, thread_settings

MANY_RANKS = {
    "OMPI_COMM_WORLD_RANK": "0",
    "OMPI_COMM_WORLD_SIZE": "4096",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "4096",
}


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


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "10000"),
        ({"OMP_NUM_THREADS": "5"}, "10000"),
        ({"GOMP_SPINCOUNT": "10000", "DTRAIN_SET": "GOMP_SPINCOUNT"}, "10000"),
        ({"OMP_WAIT_POLICY": "active"}, None),
        ({"GOMP_SPINCOUNT": "10000"}, None),
        ({"KMP_BLOCKTIME": "1"}, None),
    ],
)
def test_thread_settings_let_waiting_threads_sleep_unless_the_user_has_chosen(
    environment: dict[str, str], expected: str | None
) -> None:
    assert thread_settings(environment, 3).get("GOMP_SPINCOUNT") == expected


def test_set_num_threads_for_one_of_many_ranks_sets_one() -> None:
    environment = dict(MANY_RANKS)
    set_num_threads(environment)
    assert {environment[name] for name in THREAD_VARIABLES} == {"1"}


def test_describe_threads_says_what_was_chosen_and_why_and_what_is_the_user_s() -> None:
    environment = {**MANY_RANKS, "OPENBLAS_NUM_THREADS": "5"}
    set_num_threads(environment)
    assert describe_threads(environment) == (
        f"{own_share(environment)}; "
        "OMP_NUM_THREADS=1, OPENBLAS_NUM_THREADS=5 (set by the user), MKL_NUM_THREADS=1, GOMP_SPINCOUNT=10000"
    )
