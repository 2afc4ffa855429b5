"""The choice of a GPU: a table of what is asked for, where the rank is and what there is."""

from __future__ import annotations

import argparse

import pytest

from dtrain.core.errors import UserError
from dtrain.core.graph.upgrade import upgrade_solver
from dtrain.core.prototxt import parse_text
from dtrain.dist.topology import Topology, topology_from_hosts
from dtrain.launcher.gpus import (
    GpuChoice,
    GpuRequest,
    choose_gpu,
    gpu_request,
    parse_gpus,
    take_gpu,
)
from dtrain.proto import caffe_pb2
from tests.played.cupy import play_cupy

NONE = "CUDA must find a GPU, got none; mend it"
CPU = GpuChoice(None)


def place(rank: int = 0, hosts: str = "a") -> Topology:
    return topology_from_hosts(list(hosts), rank)


WRITTEN = GpuRequest(mode_at="s.prototxt:3")
ON_CPU = GpuRequest(is_mode_gpu=False, mode_at="s.prototxt:3")

CHOICES = [
    # what is asked for, rank and hosts, GPUs, device
    (GpuRequest(), place(), 2, 0),
    (GpuRequest(device_id=1, device_at="s:4"), place(), 2, 1),
    (GpuRequest(device_id=1, device_at="s:4"), place(2, "aabb"), 2, 0),  # of several ranks the local rank's
    (GpuRequest(), place(1, "aa"), 8, 1),
    (GpuRequest(), place(3, "aabb"), 1, 0),  # each rank is shown its own
    (GpuRequest(), place(), 0, None),
    (ON_CPU, place(), 2, None),
    (GpuRequest(engine="onednn"), place(), 2, None),
    (GpuRequest(engine="onednn", mode_at="s:3"), place(), 0, None),
    (GpuRequest(engine="cupy", is_mode_gpu=False), place(1, "aa"), 2, 1),
    (GpuRequest(engine="cudnn", device_id=1), place(), 2, 1),
    (GpuRequest(gpu="0"), place(), 1, 0),
    (GpuRequest(gpu="3", is_mode_gpu=False), place(), 4, 3),
    (GpuRequest(gpu="3", device_id=1), place(), 4, 3),
    (GpuRequest(gpu="3", engine="cudnn"), place(), 4, 3),
    (GpuRequest(gpu="0,2"), place(0, "aa"), 4, 0),
    (GpuRequest(gpu="0,2"), place(1, "aa"), 4, 2),
    (GpuRequest(gpu="2,0"), place(3, "aabb"), 4, 0),
    (GpuRequest(gpu="all"), place(1, "aa"), 2, 1),
    (GpuRequest(gpu="all"), place(5, "aaaaaa"), 1, 0),
    (GpuRequest(gpu="0"), place(1, "aa"), 1, 0),
]


@pytest.mark.parametrize(("request_", "topology", "num_devices", "device"), CHOICES)
def test_choose_gpu_table(
    request_: GpuRequest, topology: Topology, num_devices: int, device: int | None
) -> None:
    why_none = "" if num_devices else NONE
    assert choose_gpu(request_, topology, num_devices, why_none) == GpuChoice(device)


REFUSALS = [
    (GpuRequest(gpu="0"), place(), 0, f"--gpu 0: {NONE}; or leave it out to compute on the CPU"),
    (GpuRequest(gpu="all", is_mode_gpu=False), place(), 0, f"--gpu all: {NONE}; or leave it out to compute"),
    (
        GpuRequest(engine="cudnn"),
        place(),
        0,
        f"--engine cudnn: {NONE}; or leave it out to compute on the CPU",
    ),
    (
        GpuRequest(gpu="0", engine="onednn"),
        place(),
        1,
        "--gpu 0: the engine must be cudnn or cupy, got --engine onednn; leave one of the options out",
    ),
    (GpuRequest(gpu="0", engine="reference"), place(), 0, "--gpu 0: the engine must be cudnn or cupy, got"),
    (
        GpuRequest(gpu="0,2"),
        place(),
        4,
        "--gpu 0,2: each must have a rank of its own, got 2 GPUs for 1 rank on a; start as many ranks there:"
        " mpirun -np 2 dtrain …",
    ),
    (
        GpuRequest(gpu="0"),
        place(1, "aa"),
        4,
        "--gpu 0: a must have a GPU for each of its ranks, got 1 (0) for 2; name 2, or start at most 1 rank there",
    ),
    (
        GpuRequest(gpu="all"),
        place(0, "bbb"),
        2,
        "--gpu all: b must have a GPU for each of its ranks, got 2 for 3;",
    ),
    (
        GpuRequest(),
        place(2, "bbb"),
        2,
        "solver_mode GPU: b must have a GPU for each of its ranks, got 2 for 3; start at most 2 ranks there; or let"
        " the CPU compute, by solver_mode: CPU",
    ),
    (GpuRequest(gpu="4"), place(), 4, "--gpu 4: the numbers must be 0 to 3 on a, got 4; choose others"),
    (
        GpuRequest(device_id=2, device_at="s.prototxt:4"),
        place(),
        2,
        "s.prototxt:4: device_id must be 0 to 1 on a, got 2; choose another, or --gpu 0",
    ),
    (GpuRequest(device_id=1, device_at="s:4"), place(), 1, "s:4: device_id must be 0 on a, got 1;"),
    (
        GpuRequest(gpu="first"),
        place(),
        1,
        '--gpu: must be all, or the numbers of GPUs separated by commas, got "',
    ),
]


@pytest.mark.parametrize(("request_", "topology", "num_devices", "sentence"), REFUSALS)
def test_choose_gpu_that_can_not_be_had_says_so(
    request_: GpuRequest, topology: Topology, num_devices: int, sentence: str
) -> None:
    with pytest.raises(UserError) as caught:
        choose_gpu(request_, topology, num_devices, "" if num_devices else NONE)
    assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize(
    ("request_", "topology", "num_devices", "note"),
    [
        (WRITTEN, place(), 0, f"s.prototxt:3: solver_mode is GPU, but the CPU computes: {NONE}"),
        (
            GpuRequest(gpu="all"),
            place(0, "aab"),
            8,
            "--gpu all: 2 of 8 GPUs of a compute, one for each rank; all do with mpirun -np 8 dtrain …",
        ),
    ],
)
def test_choose_gpu_with_something_to_say_has_a_note(
    request_: GpuRequest, topology: Topology, num_devices: int, note: str
) -> None:
    assert choose_gpu(request_, topology, num_devices, NONE).note == note


@pytest.mark.parametrize(("text", "numbers"), [("all", []), ("0", [0]), ("3,0,12", [3, 0, 12])])
def test_parse_gpus_are_numbers_or_all(text: str, numbers: list[int]) -> None:
    assert parse_gpus(text) == numbers


@pytest.mark.parametrize("text", ["", "0,", "-1", "0;1", "all,0", "²", "1,1"])
def test_parse_gpus_of_anything_else_is_a_sentence(text: str) -> None:
    with pytest.raises(UserError, match="^--gpu"):
        parse_gpus(text)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("base_lr: 1", GpuRequest("0", "cupy")),
        ("solver_mode: GPU", GpuRequest("0", "cupy", mode_at="s.prototxt:1")),
        ("base_lr: 1\nsolver_mode: CPU", GpuRequest("0", "cupy", is_mode_gpu=False, mode_at="s.prototxt:2")),
        ("\n\ndevice_id: 3", GpuRequest("0", "cupy", device_id=3, device_at="s.prototxt:3")),
    ],
)
def test_gpu_request_is_what_options_and_file_say(fields: str, expected: GpuRequest) -> None:
    document = upgrade_solver(parse_text(fields, caffe_pb2.SolverParameter, "s.prototxt"))
    assert gpu_request(argparse.Namespace(gpu="0", engine="cupy"), document) == expected


def test_gpu_request_without_a_file_has_caffes_defaults() -> None:
    assert gpu_request(argparse.Namespace(gpu=None, engine=None)) == GpuRequest()


def test_take_gpu_makes_it_the_current_one(monkeypatch: pytest.MonkeyPatch) -> None:
    cupy = play_cupy(monkeypatch, num_devices=3)
    assert take_gpu(GpuRequest(gpu="all"), place(2, "aaa")) == GpuChoice(2)
    assert cupy.cuda.runtime.getDevice() == 2


def test_take_gpu_without_one_passes_the_reason_on(monkeypatch: pytest.MonkeyPatch) -> None:
    play_cupy(monkeypatch, num_devices=0)
    assert take_gpu(GpuRequest(), place()) == CPU
    assert "the CPU computes: CUDA must find a GPU that it can use, got" in take_gpu(WRITTEN, place()).note
    with pytest.raises(
        UserError, match="^--gpu 0: CUDA must find a GPU that it can use, got cudaErrorNoDevice"
    ):
        take_gpu(GpuRequest(gpu="0"), place())


@pytest.mark.parametrize("request_", [ON_CPU, GpuRequest(engine="reference")])
def test_take_gpu_for_the_cpu_looks_for_none(monkeypatch: pytest.MonkeyPatch, request_: GpuRequest) -> None:
    def count() -> int:
        raise AssertionError("a GPU is looked for")

    monkeypatch.setattr("dtrain.launcher.gpus.count_devices", count)
    assert take_gpu(request_, place()) == CPU
