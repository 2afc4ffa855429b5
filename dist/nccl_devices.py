"""Which GPU each rank takes, and whether every rank has one of its own, as NCCL wants it; pure functions.

In the flow prototxt → graph → net → solver → communicator → snapshot this comes before NCCL's initialisation,
which refuses two ranks on one GPU or waits for ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dtrain.dist.errors import LaunchError
from dtrain.dist.topology import Topology


def choose_device(topology: Topology, num_devices: int, asked_for: int | None = None) -> int:
    """Return the CUDA number of the GPU that this rank takes.

    That is `asked_for`; or the only GPU that it sees, since schedulers show each rank its own; or the one with the
    number of its local rank.

    Arguments:
        num_devices: how many GPUs this rank sees (CUDA_VISIBLE_DEVICES counts).

    Raises:
        LaunchError: there is no such GPU.
    """
    if num_devices == 0:
        raise LaunchError(f"nccl: {topology.host} must have a GPU, got none; use another communicator")
    if asked_for is None and topology.local_rank >= num_devices > 1:
        raise LaunchError(
            f"nccl: {topology.host} must have a GPU for each of its ranks, got {num_devices} for"
            f" {topology.local_size}; start at most {num_devices} ranks there"
        )
    default = topology.local_rank if num_devices > 1 else 0
    chosen = default if asked_for is None else asked_for
    if not 0 <= chosen < num_devices:
        raise LaunchError(
            f"nccl: the GPU must be 0 to {num_devices - 1} on {topology.host}, got {chosen}; choose another"
        )
    return chosen


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
