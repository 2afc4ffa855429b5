"""Which GPU each rank takes, and whether every rank has one of its own, as NCCL wants it; pure functions.

In the flow prototxt → graph → net → solver → communicator → snapshot this comes before NCCL's initialisation,
which refuses two ranks on one GPU or waits for ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dtrain.dist.errors import LaunchError
from dtrain.dist.topology import Topology


def choose_device(topology: Topology, num_devices: int, listed: Sequence[int] = ()) -> int:
    """Return the CUDA number of the GPU that this rank takes.

    Of `listed`, one for each rank of a host, that is the one of its local rank. Without, it is the only GPU that the
    rank sees, since schedulers show each rank its own; or the one with the number of its local rank.

    Arguments:
        num_devices: how many GPUs this rank sees, at least 1 (CUDA_VISIBLE_DEVICES counts).

    Raises:
        LaunchError: there is no such GPU, or another number of them than of ranks.
    """
    if not listed:
        return local_device(topology.host, topology.local_rank, topology.local_size, num_devices)
    unknown = [number for number in listed if not 0 <= number < num_devices]
    if unknown:
        numbers = "0" if num_devices == 1 else f"0 to {num_devices - 1}"
        raise LaunchError(
            f"gpu: the numbers must be {numbers} on {topology.host}, got {unknown[0]}; choose others"
        )
    if num_devices == 1:
        return 0
    if len(listed) < topology.local_size:
        raise LaunchError(
            f"gpu: {topology.host} must have a GPU for each of its ranks, got {_count(listed)} for"
            f" {topology.local_size}; name {topology.local_size}, or start at most {_ranks(len(listed))} there"
        )
    if len(listed) > topology.local_size:
        raise LaunchError(
            f"gpu: each must have a rank of its own, got {len(listed)} GPUs for {_ranks(topology.local_size)} on"
            f" {topology.host}; start as many ranks there: mpirun -np {len(listed)} dtrain …"
        )
    return listed[topology.local_rank]


def local_device(host: str, local_rank: int, local_size: int, num_devices: int) -> int:
    """Return the CUDA number of the GPU of a local rank: its own number, or the only GPU that it sees.

    Raises LaunchError where a host has several GPUs, but fewer than ranks.
    """
    if num_devices == 1:
        return 0
    if local_size > num_devices:
        raise LaunchError(
            f"gpu: {host} must have a GPU for each of its ranks, got {num_devices} for {local_size}; start at most"
            f" {_ranks(num_devices)} there"
        )
    return local_rank


def check_gpus(topology: Topology, has_gpu: Sequence[bool]) -> None:
    """Raise LaunchError, the same on all ranks, if a rank computes on no GPU. has_gpu: for each rank."""
    devices = tuple(f"that of rank {rank}" if has else "" for rank, has in enumerate(has_gpu))
    reason = replace(topology, devices=devices).why_no_nccl()
    if reason:
        raise LaunchError(f"nccl: each rank must compute on a GPU, got: {reason}; use another communicator")


def with_devices(topology: Topology, addresses: Sequence[str]) -> Topology:
    """Return `topology` with the GPU of each rank.

    Arguments:
        addresses: the PCI bus address of each rank's GPU, such as 0000:41:00.0.

    Raises:
        LaunchError: two ranks have the same GPU; the same on all ranks.
    """
    devices = [f"{address} of {host}" for host, address in zip(topology.hosts, addresses, strict=True)]
    completed = replace(topology, devices=tuple(devices))
    reason = completed.why_no_nccl()
    if reason:
        raise LaunchError(
            f"nccl: each rank must have a GPU of its own, got: {reason};"
            " start fewer ranks a host, or use another communicator"
        )
    return completed


def _count(listed: Sequence[int]) -> str:
    return f"{len(listed)} ({','.join(map(str, listed))})"


def _ranks(count: int) -> str:
    return f"{count} rank{'s' * (count != 1)}"
