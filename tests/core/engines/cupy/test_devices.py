"""GPUs as cupy tells of them: played ones, and that an installed cupy has what is asked of it."""

from __future__ import annotations

import os
import re
from types import SimpleNamespace

import pytest

from dtrain.core.engines.cupy import devices
from dtrain.core.engines.cupy.devices import (
    Device,
    Room,
    count_devices,
    cuda_version,
    find_attributes,
    find_devices,
    find_nccl,
    find_room,
    find_versions,
    name_current,
    out_of_memory_error,
    use_device,
)
from dtrain.core.errors import UserError
from dtrain.dist.errors import LaunchError
from tests.played.cuda import ATTRIBUTES, FREE_BYTES, TOTAL_BYTES, Cuda
from tests.played.cupy import REAL_GPU, play_cupy
from tests.played.graphs import MemoryPool

pytestmark = pytest.mark.skipif(
    REAL_GPU in os.environ, reason="GPUs are played here; tests/gpu has real ones"
)


def test_find_devices_tells_of_each_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    play_cupy(monkeypatch, num_devices=2)
    assert count_devices() == 2
    assert find_devices() == [
        Device(number, f"Played {number}", TOTAL_BYTES, FREE_BYTES, (9, 0), f"0000:0{number}:00.0")
        for number in (0, 1)
    ]


def test_use_device_makes_it_the_current_one(monkeypatch: pytest.MonkeyPatch) -> None:
    cupy = play_cupy(monkeypatch, num_devices=3)
    use_device(2)
    assert cupy.cuda.runtime.getDevice() == 2


def test_name_current_is_that_of_the_used_device(monkeypatch: pytest.MonkeyPatch) -> None:
    cupy = play_cupy(monkeypatch, num_devices=2)
    use_device(1)
    assert name_current(cupy) == "GPU 1 (Played 1)"


def test_use_device_that_is_not_there_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    play_cupy(monkeypatch, num_devices=1)
    with pytest.raises(UserError, match="^CUDA must find a GPU that it can use, got cudaErrorInvalidDevice"):
        use_device(1)


def test_find_attributes_by_cudas_names(monkeypatch: pytest.MonkeyPatch) -> None:
    play_cupy(monkeypatch)
    assert find_attributes(0, ["WarpSize", "GpuOverlap"]) == {"WarpSize": 32, "GpuOverlap": 1}


def test_find_versions_are_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    play_cupy(monkeypatch)
    assert find_versions() == {"cupy": "played", "CUDA runtime": "13.2", "driver's CUDA": "13.0"}


@pytest.mark.parametrize(("number", "text"), [(13020, "13.2"), (12080, "12.8"), (11000, "11.0")])
def test_cuda_version_of_a_number(number: int, text: str) -> None:
    assert cuda_version(number) == text


def test_count_devices_without_a_gpu_has_cudas_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    play_cupy(monkeypatch, num_devices=0)
    with pytest.raises(UserError, match="got cudaErrorNoDevice: .*; see nvidia-smi and CUDA_VISIBLE_DEVICES"):
        count_devices()


def test_count_devices_without_a_driver_says_so_and_loads_no_cupy(monkeypatch: pytest.MonkeyPatch) -> None:
    def load() -> None:
        raise AssertionError("cupy is loaded for nothing")

    monkeypatch.setattr(devices, "_DRIVER", "libcuda-of-nobody.so.1")
    monkeypatch.setattr(devices, "load_cupy", load)
    with pytest.raises(
        UserError, match=r"^NVIDIA's driver must be there for GPUs, got none \(libcuda-of-nobody"
    ):
        count_devices()


def test_count_devices_without_cupy_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def load() -> None:
        raise LaunchError("gpu: cupy must be installed; pip install 'dtrain[cuda12]'")

    monkeypatch.setattr(devices, "_find_driver", lambda: None)
    monkeypatch.setattr(devices, "load_cupy", load)
    with pytest.raises(UserError, match=r"^cupy must be installed; pip install 'dtrain\[cuda12\]'$"):
        count_devices()


def test_find_room_is_what_the_current_gpu_and_cupys_pool_have_free(monkeypatch: pytest.MonkeyPatch) -> None:
    cupy = play_cupy(monkeypatch, num_devices=2)
    use_device(1)
    assert find_room() == Room("GPU 1 (Played 1)", FREE_BYTES, TOTAL_BYTES)
    monkeypatch.setattr(MemoryPool, "free_bytes", lambda pool: 5)
    assert find_room().free_bytes == FREE_BYTES + 5
    assert out_of_memory_error() is cupy.cuda.memory.OutOfMemoryError


def test_find_nccl_is_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    nccl = SimpleNamespace(get_version=lambda: 22703)
    monkeypatch.setattr(devices, "load_nccl", lambda: SimpleNamespace(cuda=SimpleNamespace(nccl=nccl)))
    assert find_nccl() == "2.27.3"


def test_find_nccl_that_is_missing_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def load() -> None:
        raise LaunchError("nccl: cupy must find libnccl.so.2, found none")

    monkeypatch.setattr(devices, "load_nccl", load)
    with pytest.raises(UserError, match=r"^nccl: cupy must find libnccl.so.2, found none$"):
        find_nccl()


def test_played_cuda_has_the_names_and_arguments_of_the_installed_one() -> None:
    real = pytest.importorskip("cupy").cuda
    played = Cuda(1)
    for name in (
        "getDeviceCount",
        "getDevice",
        "getDeviceProperties",
        "deviceGetAttribute",
        "driverGetVersion",
    ):
        found = re.match(rf"{name}\((.*?)\)", getattr(real.runtime, name).__doc__)
        assert found is not None, name
        arguments = [argument.split()[-1] for argument in found[1].split(", ") if argument]
        code = getattr(played.runtime, name).__func__.__code__
        assert list(code.co_varnames[1 : code.co_argcount]) == arguments, name
    for name, (number, _) in ATTRIBUTES.items():
        assert int(getattr(real.runtime, f"cudaDevAttr{name}")) == number
    assert issubclass(real.runtime.CUDARuntimeError, RuntimeError)
    for name in ("use", "mem_info", "pci_bus_id", "__enter__"):
        assert hasattr(real.Device, name)
        assert hasattr(type(played.Device(0)), name)
