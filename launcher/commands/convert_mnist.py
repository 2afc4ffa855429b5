"""``dtrain convert-mnist DIR OUT``: turn MNIST's IDX files into OUT/train and OUT/test for Data layers."""

from __future__ import annotations

import argparse

from dtrain.data.convert_mnist import convert_mnist


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("folder", metavar="DIR", help="where the four IDX files are, gzip or not")
    parser.add_argument("out", metavar="OUT", help="where the databases OUT/train and OUT/test go")


def run(args: argparse.Namespace) -> int:
    """Convert and say what was written."""
    convert_mnist(args.folder, args.out)
    print(f"wrote {args.out}/train and {args.out}/test")
    return 0
