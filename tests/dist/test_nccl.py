"""NCCL's communicator with played GPUs: the suite of device_suite.py, what it refuses, and failures on the way.

That the played NCCL has the real one's signatures is checked against those of cupy 14.2 and of an installed cupy.
"""

from __future__ import annotations

import inspect
import time
from typing import Any

import numpy as np
import pytest

from dtrain.dist import nccl
from dtrain.dist.activity import Activity
from dtrain.dist.communicator import Communicator
from dtrain.dist.errors import AgreedFailure, ClusterError, LaunchError
from dtrain.dist.nccl import NcclCommunicator
from dtrain.dist.threads import run_ranks
from tests.dist.device_suite import FLOATS, Body, DeviceSuite, OnDevices, check_capture
from tests.dist.fake_cupy import Device, make_fake_cupy, play
from tests.played import nccl as played_nccl
from tests.played.cuda import Cuda
from tests.played.cupy import PlayedCupy
from tests.played.nccl import NcclError, join_nccl

# As the docstrings of cupy 14.2.0 give them, without types.
SIGNATURES = {
    "allReduce": ["sendbuf", "recvbuf", "count", "datatype", "op", "stream"],
    "reduce": ["sendbuf", "recvbuf", "count", "datatype", "op", "root", "stream"],
    "broadcast": ["sendbuff", "recvbuff", "count", "datatype", "root", "stream"],
    "allGather": ["sendbuf", "recvbuf", "count", "datatype", "stream"],
    "send": ["sendbuf", "count", "datatype", "peer", "stream"],
    "reduceScatter": ["sendbuf", "recvbuf", "recvcount", "datatype", "op", "stream"],
    "recv": ["recvbuf", "count", "datatype", "peer", "stream"],
    "check_async_error": [],
    "abort": [],
    "destroy": [],
}
INIT = ["ndev", "commId", "rank", "config"]


class TestNccl(DeviceSuite):
    @pytest.fixture(params=[1, 2, 3, 4])
    def on_devices(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> OnDevices:
        cupy = play(monkeypatch, request.param)

        def run(body: Body) -> None:
            def on_rank(host: Communicator) -> None:
                communicator = NcclCommunicator(host)
                body(communicator, cupy)
                communicator.close()

            run_ranks(request.param, on_rank)

        return run


def refusals(
    world_size: int, hosts: list[str] | None = None, error: type[Exception] = LaunchError
) -> set[str]:
    """Return what the ranks say, all of which cannot make the communicator."""

    def body(host: Communicator) -> str:
        with pytest.raises(error) as caught:
            NcclCommunicator(host)
        assert not isinstance(caught.value, AgreedFailure)  # which the launcher takes as said
        return str(caught.value)

    return set(run_ranks(world_size, body, hosts=hosts))


def test_nccl_of_two_ranks_on_one_gpu_is_refused_on_all(monkeypatch: pytest.MonkeyPatch) -> None:
    play(monkeypatch, 1)
    assert refusals(3, ["a", "b", "b"]) == {
        "nccl: each rank must have a GPU of its own, got: rank 1 (b) and rank 2 (b) share device 0000:00:00.0 of b;"
        " start fewer ranks a host, or use another communicator"
    }


def test_nccl_of_one_gpu_on_each_of_two_hosts_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    play(monkeypatch, 1)
    devices = run_ranks(2, lambda host: NcclCommunicator(host).topology.devices, hosts=["a", "b"])
    assert devices == [("0000:00:00.0 of a", "0000:00:00.0 of b")] * 2


def test_nccl_of_more_ranks_than_gpus_is_refused_on_all(monkeypatch: pytest.MonkeyPatch) -> None:
    play(monkeypatch, 2)
    (said,) = refusals(3, ["a", "a", "a"])
    assert said == "gpu: a must have a GPU for each of its ranks, got 2 for 3; start at most 2 ranks there"


def test_nccl_without_a_gpu_is_refused_with_cudas_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    play(monkeypatch, 0)
    (said,) = refusals(2)
    assert said.startswith("nccl: this rank must see a GPU, got: cudaErrorNoDevice: no CUDA-capable device")


def test_nccl_without_cupy_on_one_rank_is_refused_on_all(monkeypatch: pytest.MonkeyPatch) -> None:
    cupy = make_fake_cupy(2)
    ranks_with_cupy = iter([True, False])  # whichever comes second

    def load() -> Any:
        if next(ranks_with_cupy):
            return cupy
        raise LaunchError("nccl: no cupy here")

    monkeypatch.setattr(nccl, "load_nccl", load)
    (said,) = refusals(2)
    assert said.endswith("nccl: no cupy here")


def test_nccl_id_that_rank_0_cannot_make_is_a_cluster_error_on_all(monkeypatch: pytest.MonkeyPatch) -> None:
    cupy = play(monkeypatch, 2)

    def fail() -> bytes:
        raise NcclError(2)

    cupy.cuda.nccl.get_unique_id = fail
    (said,) = refusals(2, error=ClusterError)
    assert "): making NCCL's id: NCCL says that a call of the operating system failed in it" in said


def test_nccl_of_two_versions_is_refused_on_all(monkeypatch: pytest.MonkeyPatch) -> None:
    cupy = play(monkeypatch, 1)
    versions = iter([22703, 23203])  # in the order in which ranks ask: which is whose is not told
    cupy.cuda.nccl.get_version = lambda: next(versions)
    (said,) = refusals(2, ["a", "b"])
    assert said.startswith("nccl: all ranks must load the same version of NCCL, got 2.27.3 on ")
    assert " and 2.32.3 on " in said


def test_all_reduce_that_waits_for_a_late_rank_names_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    cupy = play(monkeypatch, 2)
    activities: dict[int, Activity] = {}

    def body(host: Communicator) -> None:
        communicator = NcclCommunicator(host)
        activities[host.rank] = host.activity
        communicator.barrier()
        if communicator.rank == 1:  # late: not before rank 0 is seen in the call
            deadline = time.monotonic() + 30
            while activities[0].collective != "all_reduce":
                assert time.monotonic() < deadline
                time.sleep(0.001)
        communicator.all_reduce(cupy.asarray(np.ones(4, np.float32)))

    run_ranks(2, body)
    assert [activities[rank].collective for rank in (0, 1)] == ["", ""]


def test_close_destroys_nccl_after_the_work_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    cupy = play(monkeypatch, 2)

    def body(host: Communicator) -> tuple[bool, list[float]]:
        communicator = NcclCommunicator(host)
        array = cupy.asarray(np.ones(3, np.float32))
        communicator.start_all_reduce(array)
        communicator.close()
        return communicator._nccl.is_destroyed, cupy.asnumpy(array).tolist()

    assert run_ranks(2, body) == [(True, [2.0] * 3)] * 2


@pytest.mark.parametrize("num_ranks", [1, 2, 3])
@pytest.mark.parametrize("ordered_sums", [False, True])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_calls_of_a_captured_stream_happen_at_each_launch_with_the_bits_of_eager_ones(
    monkeypatch: pytest.MonkeyPatch, num_ranks: int, ordered_sums: bool, dtype: np.dtype[Any]
) -> None:
    cupy = PlayedCupy("cupy")
    cupy.cuda = Cuda(num_ranks)
    join_nccl(monkeypatch, cupy)

    def body(host: Communicator) -> None:
        communicator = NcclCommunicator(host)
        communicator.ordered_sums = ordered_sums
        graph = check_capture(communicator, cupy, dtype)
        communicator.close()
        assert graph.num_launches == 3
        assert not communicator._nccl.is_destroyed  # NCCL would wait until the graph is gone

    run_ranks(num_ranks, body)


def test_played_nccl_has_the_recorded_signatures() -> None:
    for name, recorded in SIGNATURES.items():
        played = list(inspect.signature(getattr(played_nccl.NcclCommunicator, name)).parameters)
        assert played == ["self", *recorded], name
    assert list(inspect.signature(played_nccl.NcclCommunicator).parameters) == INIT


def documented_arguments(docstring: str) -> list[str]:
    """Return the names in a docstring's first line, ``f(self, intptr_t buf, int config=None)``."""
    line = docstring.strip().splitlines()[0]
    words = line.partition("(")[2].rpartition(")")[0].split(",")
    return [word.partition("=")[0].split()[-1] for word in words]


def test_documented_arguments_of_an_example_are_its_names() -> None:
    assert documented_arguments("C.f(self, intptr_t buf, NcclConfig config=None)\n\nText (more).") == [
        "self",
        "buf",
        "config",
    ]


def test_recorded_signatures_are_those_of_the_installed_cupy() -> None:
    real = pytest.importorskip("cupy.cuda.nccl")
    if not real.available:
        pytest.skip("cupy finds no NCCL")
    for name, recorded in SIGNATURES.items():
        assert documented_arguments(getattr(real.NcclCommunicator, name).__doc__) == ["self", *recorded], name
    assert documented_arguments(real.NcclCommunicator.__doc__) == INIT
    numbers = {name: getattr(real, f"NCCL_{name}") for name in played_nccl.TYPES}
    assert (numbers, real.NCCL_SUM) == (played_nccl.TYPES, played_nccl.NCCL_SUM)
    assert (len(real.get_unique_id()), len(played_nccl.get_unique_id())) == (128, 128)
    assert real.get_version() > 22700
    for status, text in played_nccl.ERRORS.items():
        assert (str(real.NcclError(status)), real.NcclError(status).status) == (text, status)
    with pytest.raises(KeyError):
        real.NcclError(7)


def test_played_cupy_has_the_streams_and_events_of_the_installed_one() -> None:
    real = pytest.importorskip("cupy")
    played = make_fake_cupy(1)
    for name, methods, options in (
        ("Stream", ["wait_event", "synchronize", "is_capturing", "__enter__"], ["non_blocking", "priority"]),
        ("Event", ["record"], ["disable_timing"]),
        ("Device", ["use", "pci_bus_id", "__enter__"], []),
    ):
        for cuda in (real.cuda, played.cuda):
            made = getattr(cuda, name)
            shown = dir(made) + ["pci_bus_id"] * (made is Device)  # which Device sets when it is made
            assert set(methods) <= set(shown), (cuda, name)
        told = (
            str(inspect.signature(real.cuda.Stream)) if name == "Stream" else getattr(real.cuda, name).__doc__
        )
        assert all(option in told for option in options)
    names = {"getDeviceCount", "CUDARuntimeError", "eventQuery", "check_status"}
    assert names <= set(dir(real.cuda.runtime)) & set(vars(played.cuda.runtime))
    assert callable(real.cuda.get_current_stream)
