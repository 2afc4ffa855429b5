from __future__ import annotations

import dataclasses
import inspect

import numpy as np
import pytest

from dtrain.core.engines import create_engine, operations
from dtrain.core.engines.reference.engine import num_blas_threads


def test_reference_engine_has_every_operation() -> None:
    specs = {
        member
        for name, member in inspect.getmembers(operations, dataclasses.is_dataclass)
        if name.endswith("Spec")
    }
    assert specs - set(operations.OPTIONAL) == set(create_engine("reference").operations)


def test_describe_names_numpy_its_blas_and_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "3")
    text = create_engine("reference").describe()
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]["name"]
    assert text.startswith(f"reference: numpy {np.__version__}, {blas} ")
    assert text.endswith(" 3 threads")


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"OPENBLAS_NUM_THREADS": "2", "OMP_NUM_THREADS": "5"}, 2),
        ({"OMP_NUM_THREADS": "5"}, 5),
        ({"OPENBLAS_NUM_THREADS": "many", "MKL_NUM_THREADS": "4"}, 4),
    ],
)
def test_num_blas_threads_is_the_first_number_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: int
) -> None:
    for variable in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    assert num_blas_threads() == expected


def test_num_blas_threads_without_environment_is_that_of_the_usable_cores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for variable in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 2, 5}, raising=False)
    assert num_blas_threads() == 3


def test_describe_of_a_numpy_without_blas_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(np, "show_config", lambda mode: {})
    assert f"numpy {np.__version__}, no BLAS, " in create_engine("reference").describe()
