"""Which GPU a rank computes on: --gpu and --engine, the solver file, and what GPUs there are.

Stands before the flow prototxt → graph → net → solver → communicator → snapshot: commands take the GPU, and then
make the engine. The choice itself is a pure function; which of several GPUs a local rank gets, dist/nccl_devices.py
says.
"""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass

from dtrain.core.engines import GPU_ENGINES
from dtrain.core.engines.cupy.devices import count_devices, use_device
from dtrain.core.errors import UserError
from dtrain.core.graph.upgrade import SolverDocument
from dtrain.dist.errors import LaunchError
from dtrain.dist.nccl_devices import choose_device
from dtrain.dist.topology import Topology
from dtrain.proto import caffe_pb2


@dataclass(frozen=True)
class GpuRequest:
    """What the command line and the solver file say of GPUs.

    gpu: --gpu: numbers separated by commas, or all; None: not given. engine: --engine. is_mode_gpu: the solver's
    solver_mode, which is GPU unless a file says CPU. mode_at: where the file says that, "" where it doesn't.
    device_id: the solver's; None: not written. device_at: where.
    """

    gpu: str | None = None
    engine: str | None = None
    is_mode_gpu: bool = True
    mode_at: str = ""
    device_id: int | None = None
    device_at: str = ""

    @property
    def is_for_cpu(self) -> bool:
        """Whether the CPU is what is asked for, whatever GPUs there are."""
        return self.gpu is None and (
            self.engine not in GPU_ENGINES if self.engine is not None else not self.is_mode_gpu
        )

    @property
    def option(self) -> str:
        """The option that asks for a GPU, as it was given; "" where none does."""
        if self.gpu is not None:
            return f"--gpu {self.gpu}"
        return f"--engine {self.engine}" if self.engine in GPU_ENGINES else ""


@dataclass(frozen=True)
class GpuChoice:
    """What a rank computes on. device: its GPU's CUDA number; None: on the CPU. note: a line for the log, or ""."""

    device: int | None
    note: str = ""


def gpu_request(args: argparse.Namespace, document: SolverDocument | None = None) -> GpuRequest:
    """Return what the options --gpu and --engine say, and the solver file if there is one."""
    solver = document.message if document else caffe_pb2.SolverParameter()
    has_id, has_mode = solver.HasField("device_id"), solver.HasField("solver_mode")
    return GpuRequest(
        gpu=args.gpu,
        engine=args.engine,
        is_mode_gpu=solver.solver_mode == caffe_pb2.SolverParameter.GPU,
        mode_at=document.where("solver_mode") if document and has_mode else "",
        device_id=solver.device_id if has_id else None,
        device_at=document.where("device_id") if document and has_id else "",
    )


def take_gpu(request: GpuRequest, topology: Topology) -> GpuChoice:
    """Choose this rank's GPU and make it the current one. Not collective. Raises UserError as choose_gpu does."""
    if request.is_for_cpu:
        return GpuChoice(None)
    num_devices, why_none = 0, ""
    try:
        num_devices = count_devices()
    except UserError as error:
        why_none = str(error)
    choice = choose_gpu(request, topology, num_devices, why_none)
    if choice.device is not None:
        use_device(choice.device)
    return choice


def choose_gpu(request: GpuRequest, topology: Topology, num_devices: int, why_none: str = "") -> GpuChoice:
    """Choose what the rank at `topology` computes on; a pure function.

    What the command line asks for is had or is an error. The solver file's GPU is had if there is one: device_id of
    one rank, of several that of the local rank.

    Arguments:
        num_devices: how many GPUs this rank sees. why_none: why it can use none, in words.

    Raises:
        UserError: a GPU is asked for and there is none, or another number of them than of ranks; or the options
            contradict each other.
    """
    if request.is_for_cpu:
        return GpuChoice(None)
    listed = _listed(request)
    if not num_devices:
        if request.option:
            raise UserError(f"{request.option}: {why_none}; or leave it out to compute on the CPU")
        if request.mode_at:
            return GpuChoice(None, f"{request.mode_at}: solver_mode is GPU, but the CPU computes: {why_none}")
        return GpuChoice(None)
    if request.gpu is None and topology.world_size == 1:
        return GpuChoice(_own_device(request, topology, num_devices))
    try:
        device = choose_device(topology, num_devices, listed)
    except LaunchError as error:
        said = str(error).removeprefix("gpu: ")
        if request.option:
            raise UserError(f"{request.option}: {said}") from error
        raise UserError(f"solver_mode GPU: {said}; or let the CPU compute, by solver_mode: CPU") from error
    return GpuChoice(device, _unused(request, topology, num_devices))


def parse_gpus(text: str) -> list[int]:
    """Return the numbers that --gpu lists, [] for all. Raises UserError for what is neither."""
    if text == "all":
        return []
    numbers = text.split(",")
    if not all(re.fullmatch("[0-9]+", number) for number in numbers):
        raise UserError(f'--gpu: must be all, or the numbers of GPUs separated by commas, got "{text}"')
    listed = [int(number) for number in numbers]
    if len(set(listed)) < len(listed):
        raise UserError(
            f"--gpu {text}: each GPU must be named once, got one twice; a rank takes one of its own"
        )
    return listed


def _listed(request: GpuRequest) -> list[int]:
    """Return the GPUs that --gpu lists; [] for all, and without the option."""
    text = request.gpu
    if text is None:
        return []
    if request.engine is not None and request.engine not in GPU_ENGINES:
        known = " or ".join(GPU_ENGINES)
        raise UserError(
            f"--gpu {text}: the engine must be {known}, got --engine {request.engine}; leave one of the options out"
        )
    return parse_gpus(text)


def _own_device(request: GpuRequest, topology: Topology, num_devices: int) -> int:
    """Return the GPU of a job of one rank of which --gpu says nothing."""
    device = request.device_id or 0
    if not 0 <= device < num_devices:
        numbers = "0" if num_devices == 1 else f"0 to {num_devices - 1}"
        raise UserError(
            f"{request.device_at}: device_id must be {numbers} on {topology.host}, got {device}; choose another, or"
            " --gpu 0"
        )
    return device


def _unused(request: GpuRequest, topology: Topology, num_devices: int) -> str:
    """Return a line on GPUs of this host that no rank takes though all were asked for, "" if there are none."""
    size = topology.local_size
    if request.gpu != "all" or num_devices <= size:
        return ""
    return (
        f"--gpu all: {size} of {num_devices} GPUs of {topology.host} compute, one for each rank; all do with"
        f" mpirun -np {num_devices} dtrain …"
    )
