"""dtrain device-query, on made-up lists of GPUs."""

from __future__ import annotations

import pytest

from dtrain.launcher.commands.device_query import device_lines
from dtrain.launcher.gpus import NO_GPU_ENGINE
from dtrain.launcher.main import main


@pytest.mark.parametrize(
    ("models", "chosen", "lines"),
    [
        ([], "all", ["no GPU found"]),
        (["A", "B"], "all", ["Device id: 0  A", "Device id: 1  B"]),
        (["A", "B", "C"], "0,2", ["Device id: 0  A", "Device id: 2  C"]),
        (["A"], "1", ["no GPU found"]),
    ],
)
def test_device_lines_of_chosen_gpus(models: list[str], chosen: str, lines: list[str]) -> None:
    assert device_lines(models, chosen) == [*lines, NO_GPU_ENGINE]


def test_device_query_ends_with_what_this_release_does(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["device_query", "-gpu", "all"]) == 0
    assert capsys.readouterr().out.endswith(f"{NO_GPU_ENGINE}\n")
