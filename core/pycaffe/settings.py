"""pycaffe's functions on modes, seeds and ranks, and what there is of layers and solvers."""

from __future__ import annotations

import os
import socket

from dtrain.core.caffe_state import STATE
from dtrain.core.engines import Engine, Promises, create_engine
from dtrain.core.engines.cupy.devices import count_devices, find_nccl, use_device
from dtrain.core.errors import UserError
from dtrain.core.layers import LAYERS
from dtrain.core.solver.update_rules import UPDATE_RULES
from dtrain.dist.errors import LaunchError
from dtrain.dist.launch_environment import launched_local_rank, launched_local_size
from dtrain.dist.nccl_devices import local_device
from dtrain.proto import caffe_pb2

TRAIN: int = caffe_pb2.TRAIN
TEST: int = caffe_pb2.TEST


def set_mode_cpu() -> None:
    """Let nets and solvers that are made from now on in this thread compute on the CPU, as they do by default."""
    STATE.is_mode_gpu = False


def set_mode_gpu() -> None:
    """Let nets and solvers that are made from now on in this thread compute on a GPU: that of set_device, else the
    first; of the ranks that an MPI launcher started on a host, each on the one with the number of its local rank.

    Raises UserError where there is no GPU to use: a script that counts on one must hear of it.
    """
    try:
        num_devices = count_devices()
        if STATE.device is None:
            device = _launched_device(num_devices)
            use_device(device)
            STATE.device = device
    except (UserError, LaunchError) as error:
        reason = str(error).removeprefix("gpu: ")
        raise UserError(f"set_mode_gpu: {reason}; or call set_mode_cpu() instead") from error
    STATE.is_mode_gpu = True


def set_device(device: int) -> None:
    """Let nets and solvers that are made from now on in this thread, in mode GPU, compute on GPU `device`, from 0.

    Raises UserError where there is no such GPU.
    """
    try:
        num_devices = count_devices()
        if not 0 <= device < num_devices:
            numbers = "0" if num_devices == 1 else f"0 to {num_devices - 1}"
            raise UserError(f"the device must be {numbers}, got {device}")
        use_device(device)
    except UserError as error:
        raise UserError(f"set_device: {error}; or leave the call out and call set_mode_cpu()") from error
    STATE.device = device


def engine_of_mode(precision: str = "FLOAT32", promises: Promises | None = None) -> Engine:
    """Return a new engine for this thread's mode and GPU. Raises UserError as create_engine does."""
    promises = promises or Promises()
    if not STATE.is_mode_gpu:
        return create_engine(precision=precision, promises=promises)
    assert STATE.device is not None, "set_mode_gpu sets it"
    use_device(STATE.device)
    engine = create_engine(precision=precision, on_gpu=True, promises=promises)
    STATE.gpu_memory = engine.memory
    return engine


def _launched_device(num_devices: int) -> int:
    """Return the GPU of this process: 0, or where it is a rank that of its local rank. Raises LaunchError."""
    local_rank = launched_local_rank(os.environ) or 0
    local_size = launched_local_size(os.environ) or local_rank + 1
    return local_device(socket.gethostname(), local_rank, local_size, num_devices)


def set_random_seed(seed: int) -> None:
    """Let nets and solvers that are made from now on in this thread draw their random numbers from `seed`.

    Each gets a seed of its own, in the order in which they are made; a solver file's random_seed comes first.
    """
    STATE.set_seed(seed)


def solver_count() -> int:
    """Return how many solvers share the training data: the ranks, or what set_solver_count has said."""
    return 1 if STATE.solver_count is None else STATE.solver_count


def set_solver_count(count: int) -> None:
    """Say how many solvers share the training data; it must be the number of ranks where a solver is made."""
    if count < 1:
        raise UserError(f"set_solver_count: the count must be at least 1, got {count}")
    STATE.solver_count = count


def solver_rank() -> int:
    """Return which of solver_count() this is, from 0."""
    return STATE.solver_rank


def set_solver_rank(rank: int) -> None:
    """Say which of the solvers this is, from 0."""
    if rank < 0:
        raise UserError(f"set_solver_rank: the rank must be at least 0, got {rank}")
    STATE.solver_rank = rank


def set_multiprocess(multiprocess: bool) -> None:
    """Say whether the solvers are processes. dtrain's ranks always are, so that this changes nothing."""
    STATE.multiprocess = bool(multiprocess)


def has_nccl() -> bool:
    """Return whether gradients can go over NCCL: whether there are a GPU and NCCL."""
    try:
        return count_devices() > 0 and find_nccl() != ""
    except UserError:
        return False


def layer_type_list() -> list[str]:
    """Return the known layer types."""
    return list(LAYERS)


def solver_type_list() -> list[str]:
    """Return the known solver types."""
    return list(UPDATE_RULES)
