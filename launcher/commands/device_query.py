"""``dtrain device-query``: list the GPUs of this host, as ``caffe device_query`` does."""

from __future__ import annotations

import argparse

from dtrain.launcher.gpus import NO_GPU_ENGINE, find_gpus


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--gpu", default="all", help="device numbers separated by commas, or all")


def run(args: argparse.Namespace) -> int:
    """Print one line per chosen GPU."""
    print("\n".join(device_lines(find_gpus(), args.gpu)))
    return 0


def device_lines(models: list[str], chosen: str) -> list[str]:
    """Return the lines to print: the chosen GPUs, or that there is none, and what this release uses."""
    wanted = set(chosen.split(","))
    lines = [f"Device id: {i}  {model}" for i, model in enumerate(models) if {"all", str(i)} & wanted]
    return [*(lines or ["no GPU found"]), NO_GPU_ENGINE]
