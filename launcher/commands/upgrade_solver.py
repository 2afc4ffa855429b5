"""``dtrain upgrade-solver INPUT OUTPUT``: write a solver file of any age in today's form.

Follows caffe's tools/upgrade_solver_proto_text.cpp; nets that are written inside the solver file are upgraded too.
"""

from __future__ import annotations

import argparse
from typing import Any

from dtrain.core.graph.stock_caffe import strip_extensions
from dtrain.core.graph.upgrade import SolverDocument, upgrade_net, upgrade_solver
from dtrain.core.prototxt import Document, Path, read_text, write_text
from dtrain.launcher.net_file import replace_file
from dtrain.proto import caffe_pb2

_NET_FIELDS = ("net_param", "train_net_param", "test_net_param")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("input", metavar="INPUT", help="a solver's prototxt file")
    parser.add_argument("output", metavar="OUTPUT", help="where it goes; comments are not kept")
    parser.add_argument(
        "--strip", action="store_true", default=None, help="take out dtrain_param, which stock Caffe refuses"
    )


def run(args: argparse.Namespace) -> int:
    """Upgrade, write, and say what was done."""
    lines: list[str] = []
    document = upgrade_solver(read_text(args.input, caffe_pb2.SolverParameter), lines.append)
    upgrade_inner_nets(document, lines)
    if not lines:
        lines.append(f"{args.input}: nothing is old")
    if args.strip:
        lines.append(f"{args.input}: {strip_extensions(document.message)} dtrain_param taken out")
    replace_file(args.output, write_text(document.message).encode())
    print("\n".join([*lines, f"wrote {args.output}"]))
    return 0


def upgrade_inner_nets(document: SolverDocument, lines: list[str]) -> None:
    """Upgrade the nets inside a solver file, in place; each kind of old fields adds to `lines`."""
    solver: Any = document.message
    for field in _NET_FIELDS:
        is_list = hasattr(getattr(solver, field), "append")
        nets = getattr(solver, field) if is_list else [getattr(solver, field)] * solver.HasField(field)
        for i, net in enumerate(nets):
            place: Path = (field, i) if is_list else (field,)
            inner = {path[len(place) :]: line for path, line in document.lines.items() if _is_in(path, place)}
            net.CopyFrom(upgrade_net(Document(net, document.path, inner), lines.append).message)


def _is_in(path: Path, place: Path) -> bool:
    return len(path) > len(place) and path[: len(place)] == place
