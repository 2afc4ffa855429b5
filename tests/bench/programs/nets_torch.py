"""The peer of nets.py: the same net and update in PyTorch (eager), in turns.

OMP_NUM_THREADS=2 nets_torch.py NET [tuned] [bf16]     NET: the prototxt that nets.py has written

bf16: forward under autocast, as its users have it; params, their gradients and the update are float32.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

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
) -> tuple[TorchNet, Callable[[int], None]]:
    """Return a net that trains on one made-up batch, and what takes a number of iterations.

    text: the prototxt of a net whose first layer is DummyData. wrap: is given the net and returns what is to be run.
    tuned: with channels last and a fused update, which a user has to ask for, instead of PyTorch's defaults.
    in_bf16: convolutions and inner products in bf16, by autocast.
    """
    param = text_format.Parse(text, caffe_pb2.NetParameter())
    (data, images), (label, labels) = made_up_batch(param).items()
    batch = {data: torch.from_numpy(images), label: torch.from_numpy(labels).long()}
    net = TorchNet(param, batch)
    if tuned:
        net.to(memory_format=torch.channels_last)
        batch[data] = batch[data].contiguous(memory_format=torch.channels_last)
    optimizer, wrapped = sgd(net, BASE_LR, MOMENTUM, WEIGHT_DECAY, fused=tuned), wrap(net)

    def steps(num_iterations: int) -> None:
        for _ in range(num_iterations):
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=in_bf16):
                loss = wrapped(batch)
            loss.backward()
            optimizer.step()

    return net, steps


def main() -> None:
    """Train in turns."""
    torch.set_num_threads(NUM_THREADS)
    words = sys.argv[2:]
    net, steps = make_steps(Path(sys.argv[1]).read_text(), tuned="tuned" in words, in_bf16="bf16" in words)
    take_turns(steps, {"num_params": lambda: sum(param.numel() for param in net.learned)})


if __name__ == "__main__":
    main()
