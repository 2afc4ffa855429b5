"""The peer of nets.py and gpu_nets.py: the same net and update in PyTorch, in turns.

OMP_NUM_THREADS=2 nets_torch.py NET [tuned] [bf16] [cuda] [tf32] [compiled]     NET: the prototxt of nets.py

bf16: forward under autocast, as its users have it; params, their gradients and the update are float32. cuda: on the
first GPU, seconds by CUDA's events; tf32 lets float32 products be rounded there. compiled: by torch.compile.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from google.protobuf import text_format
from torch import nn
from torch_net import TorchNet, sgd
from turns import BASE_LR, MOMENTUM, NUM_THREADS, WEIGHT_DECAY, made_up_batch, take_turns

from dtrain.proto import caffe_pb2


def make_steps(
    text: str,
    wrap: Callable[[nn.Module], nn.Module] = lambda net: net,
    *,
    tuned: bool = False,
    in_bf16: bool = False,
    device: str = "cpu",
) -> tuple[TorchNet, Callable[[int], None]]:
    """Return a net that trains on one made-up batch, and what takes a number of iterations.

    text: the prototxt of a net whose first layer is DummyData. wrap: is given the net and returns what is to be run.
    tuned: with channels last and a fused update, which a user has to ask for, instead of PyTorch's defaults.
    in_bf16: convolutions and inner products in bf16, by autocast.
    """
    param = text_format.Parse(text, caffe_pb2.NetParameter())
    (data, images), (label, labels) = made_up_batch(param).items()
    batch = {data: torch.from_numpy(images).to(device), label: torch.from_numpy(labels).long().to(device)}
    with torch.device(device):
        net = TorchNet(param, batch)
    if tuned:
        net.to(memory_format=torch.channels_last)
        batch[data] = batch[data].contiguous(memory_format=torch.channels_last)
    optimizer, wrapped = sgd(net, BASE_LR, MOMENTUM, WEIGHT_DECAY, fused=tuned), wrap(net)

    def steps(num_iterations: int) -> None:
        for _ in range(num_iterations):
            optimizer.zero_grad()
            with torch.autocast(device, torch.bfloat16, enabled=in_bf16):
                loss = wrapped(batch)
            loss.backward()
            optimizer.step()

    return net, steps


def seconds_on_gpu(run: Callable[[], object]) -> float:
    """Return how long the GPU took for what `run` gave it."""
    began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    began.record()
    run()
    ended.record()
    ended.synchronize()
    return began.elapsed_time(ended) / 1000


def main() -> None:
    """Train in turns."""
    torch.set_num_threads(NUM_THREADS)
    words = sys.argv[2:]
    is_on_gpu = "cuda" in words
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = "tf32" in words
    torch.backends.cudnn.benchmark = True  # fixed shapes: the fastest algorithms, as its users have it
    net, steps = make_steps(
        Path(sys.argv[1]).read_text(),
        torch.compile if "compiled" in words else lambda net: net,
        tuned="tuned" in words,
        in_bf16="bf16" in words,
        device="cuda" if is_on_gpu else "cpu",
    )
    answers: dict[str, Callable[[], Any]] = {
        "num_params": lambda: sum(param.numel() for param in net.learned)
    }
    if is_on_gpu:
        answers["peak_mb"] = lambda: (
            torch.cuda.max_memory_reserved() / 2**20
        )  # as ours: what is taken of the GPU
    take_turns(steps, answers, seconds_on_gpu if is_on_gpu else None)


if __name__ == "__main__":
    main()
