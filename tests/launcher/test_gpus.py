"""GPUs, from a made-up /proc of the driver."""

from __future__ import annotations

from pathlib import Path

from dtrain.launcher.gpus import find_gpus


def enter_gpu(driver: Path, address: str, text: str) -> None:
    (driver / address).mkdir()
    (driver / address / "information").write_text(text)


def test_find_gpus_without_driver_is_empty(tmp_path: Path) -> None:
    assert find_gpus(tmp_path / "absent") == []


def test_find_gpus_names_models_in_order_of_addresses(tmp_path: Path) -> None:
    enter_gpu(tmp_path, "0000:41:00.0", "Model: \t\t NVIDIA H200\nIRQ: 7\n")
    enter_gpu(tmp_path, "0000:03:00.0", "IRQ: 5\nModel: Tesla T4\n")
    assert find_gpus(tmp_path) == ["Tesla T4", "NVIDIA H200"]


def test_find_gpus_without_a_model_names_the_address(tmp_path: Path) -> None:
    enter_gpu(tmp_path, "0000:03:00.0", "IRQ: 5\n")
    assert find_gpus(tmp_path) == ["unknown model (0000:03:00.0)"]
