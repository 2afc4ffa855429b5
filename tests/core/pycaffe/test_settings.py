from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dtrain.core import pycaffe as caffe
from dtrain.core.engines import CPU_ENGINES, Engine
from dtrain.core.errors import UserError
from tests.core.pycaffe.conftest import WEIGHTS, X, Y, Z
from tests.played.cupy import play_cupy


def test_type_lists_hold_what_a_prototxt_may_name() -> None:
    assert {"Convolution", "Data", "Python", "MemoryData", "SoftmaxWithLoss"} <= set(caffe.layer_type_list())
    assert "SGD" in caffe.solver_type_list()


def test_phases_are_caffes_numbers() -> None:
    assert (caffe.TRAIN, caffe.TEST) == (0, 1)


def test_mode_gpu_without_a_gpu_is_a_sentence_and_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    play_cupy(monkeypatch, num_devices=0)
    caffe.set_mode_cpu()
    assert not caffe.has_nccl()
    with pytest.raises(RuntimeError, match=r"^set_mode_gpu: CUDA must .*; or call set_mode_cpu\(\) instead$"):
        caffe.set_mode_gpu()
    with pytest.raises(RuntimeError, match="^set_device: CUDA must .*; or leave the call out"):
        caffe.set_device(3)
    assert engine_of(caffe.Net("net.prototxt", caffe.TEST)).name in CPU_ENGINES


def engine_of(net: caffe.Net) -> Engine:
    return net._net.layers[0].engine


def test_nets_and_solvers_after_set_mode_gpu_compute_on_the_chosen_gpu(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    cupy = play_cupy(monkeypatch, num_devices=3)
    without_cudnn(monkeypatch)
    before = caffe.Net("net.prototxt", caffe.TEST)
    caffe.set_device(2)
    caffe.set_mode_gpu()
    net = caffe.Net("net.prototxt", caffe.TEST)
    solver = caffe.get_solver("solver.prototxt")
    caffe.set_mode_cpu()
    after = caffe.Net("net.prototxt", caffe.TEST)
    assert cupy.cuda.runtime.getDevice() == 2
    assert [engine_of(each).name for each in (net, solver.net)] == ["cupy", "cupy"]
    assert [engine_of(each).name in CPU_ENGINES for each in (before, after)] == [True, True]


def test_a_net_on_a_gpu_gives_what_one_on_the_cpu_gives_and_addresses(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    play_cupy(monkeypatch)
    without_cudnn(monkeypatch)
    caffe.set_mode_gpu()
    net = caffe.Net("net.prototxt", caffe.TEST)
    net.params["ip"][0].data[...] = WEIGHTS
    np.testing.assert_allclose(net.forward(x=X, z=Z)["tanh"], np.tanh(Y), rtol=1e-6)
    assert net.blobs["y"]._gpu_data_ptr != net.blobs["x"]._gpu_data_ptr
    assert net.params["ip"][0]._gpu_diff_ptr > 0


@pytest.mark.parametrize(
    ("variables", "device"),
    [
        ({}, 0),
        ({"RANK": "5", "SIZE": "6", "LOCAL_RANK": "1", "LOCAL_SIZE": "2"}, 1),
    ],
)
def test_set_mode_gpu_without_set_device_takes_that_of_the_local_rank(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], device: int
) -> None:
    cupy = play_cupy(monkeypatch, num_devices=2)
    for name, value in variables.items():
        monkeypatch.setenv(f"OMPI_COMM_WORLD_{name}", value)
    caffe.set_mode_gpu()
    assert cupy.cuda.runtime.getDevice() == device


def test_set_mode_gpu_of_more_ranks_than_gpus_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    play_cupy(monkeypatch, num_devices=2)
    for name, value in {"RANK": "0", "SIZE": "3", "LOCAL_RANK": "0", "LOCAL_SIZE": "3"}.items():
        monkeypatch.setenv(f"OMPI_COMM_WORLD_{name}", value)
    with pytest.raises(
        UserError, match="^set_mode_gpu: .* must have a GPU for each of its ranks, got 2 for 3; "
    ):
        caffe.set_mode_gpu()


def test_set_device_that_is_not_there_says_which_are(monkeypatch: pytest.MonkeyPatch) -> None:
    play_cupy(monkeypatch, num_devices=2)
    with pytest.raises(
        UserError, match="^set_device: the device must be 0 to 1, got 3; or leave the call out"
    ):
        caffe.set_device(3)


def test_has_nccl_needs_a_gpu_and_nccl(monkeypatch: pytest.MonkeyPatch) -> None:
    def find() -> str:
        raise UserError("nccl: none")

    play_cupy(monkeypatch)
    monkeypatch.setattr("dtrain.core.pycaffe.settings.find_nccl", lambda: "2.27.3")
    assert caffe.has_nccl()
    monkeypatch.setattr("dtrain.core.pycaffe.settings.find_nccl", find)
    assert not caffe.has_nccl()


def without_cudnn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let cupy be the only engine for GPUs."""
    monkeypatch.setattr("dtrain.core.engines.GPU_ENGINES", ("cupy",))


def test_solver_count_and_rank_are_what_was_set_in_this_thread() -> None:
    assert (caffe.solver_count(), caffe.solver_rank()) == (1, 0)
    caffe.set_solver_count(4)
    caffe.set_solver_rank(3)
    caffe.set_multiprocess(True)
    assert (caffe.solver_count(), caffe.solver_rank()) == (4, 3)
    seen = []
    thread = threading.Thread(target=lambda: seen.append((caffe.solver_count(), caffe.solver_rank())))
    thread.start()
    thread.join()
    assert seen == [(1, 0)]


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        (lambda: caffe.set_solver_count(0), "set_solver_count: the count must be at least 1, got 0"),
        (lambda: caffe.set_solver_rank(-1), "set_solver_rank: the rank must be at least 0, got -1"),
    ],
)
def test_solver_count_and_rank_out_of_range_say_so(call: Callable[[], None], problem: str) -> None:
    with pytest.raises(UserError) as caught:
        call()
    assert str(caught.value) == problem
