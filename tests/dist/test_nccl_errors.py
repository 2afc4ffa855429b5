"""What NCCL and CUDA report, in sentences: a table, and that nothing else is taken for it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from dtrain.dist.errors import ClusterError, LaunchError
from dtrain.dist.nccl_errors import check_versions, explain, name_version, naming, status_of
from dtrain.dist.topology import topology_from_hosts
from tests.played.graphs import CudaError
from tests.played.nccl import ERRORS, NcclError

CUDA: Any = SimpleNamespace(
    nccl=SimpleNamespace(NcclError=NcclError), runtime=SimpleNamespace(CUDARuntimeError=CudaError)
)


@pytest.mark.parametrize(
    ("status", "meaning", "fix"),
    [
        (1, "a call of CUDA failed in it", "dtrain doctor looks at driver and libraries"),
        (
            2,
            "a call of the operating system failed in it",
            "NCCL_SOCKET_IFNAME names, and have room in /dev/shm",
        ),
        (3, "it failed in itself", "NCCL_DEBUG=INFO"),
        (4, "it refused an argument of the call", "ranks that disagree"),
        (5, "it refused the call as a wrong use of it", "each rank needs a GPU of its own"),
        (6, "it lost another rank, whose process has ended or whose network is gone", "that rank's own line"),
    ],
)
def test_explain_of_each_of_nccls_numbers_says_what_it_means_what_it_said_and_what_to_do(
    status: int, meaning: str, fix: str
) -> None:
    said = explain(NcclError(status))
    assert said.startswith(f"NCCL says that {meaning}")
    assert f"({ERRORS[status]}); " in said
    assert fix in said
    assert "\n" not in said


@pytest.mark.parametrize(("status", "words"), [(7, "in progress"), (8, "longer than"), (99, "it failed")])
def test_explain_of_a_number_that_cupy_does_not_know_names_it(status: int, words: str) -> None:
    said = explain(KeyError(status))
    assert words in said
    assert f"(error {status})" in said
    assert status_of(KeyError(status)) == status


def test_naming_turns_errors_of_nccl_and_cuda_into_cluster_errors_that_name_the_place() -> None:
    for error in (NcclError(6), KeyError(8), CudaError("cudaErrorIllegalAddress: an illegal memory access")):
        with pytest.raises(ClusterError) as caught, naming(CUDA, "rank 2 (b): all_reduce"):
            raise error
        assert str(caught.value) == f"rank 2 (b): all_reduce: {explain(error)}"
        assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    "error", [KeyError("conv1"), KeyError(), ValueError("x"), ClusterError("said before")]
)
def test_naming_lets_other_errors_pass(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, naming(CUDA, "rank 2 (b): all_reduce"):
        raise error
    assert caught.value is error


def test_check_versions_of_one_version_passes() -> None:
    check_versions(topology_from_hosts(["a", "a", "b"], 0), [22703] * 3)


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_check_versions_of_two_names_a_host_of_each(rank: int) -> None:
    with pytest.raises(LaunchError) as caught:
        check_versions(topology_from_hosts(["a", "b", "c"], rank), [23203, 22703, 23203])
    assert str(caught.value) == (
        "nccl: all ranks must load the same version of NCCL, got 2.27.3 on b and 2.32.3 on a; install one on all"
        " hosts, or look at LD_LIBRARY_PATH"
    )


@pytest.mark.parametrize(("number", "name"), [(20905, "2.9.5"), (22703, "2.27.3"), (23203, "2.32.3")])
def test_name_version_is_as_nccl_counts(number: int, name: str) -> None:
    assert name_version(number) == name
