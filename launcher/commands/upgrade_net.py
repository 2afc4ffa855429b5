"""``dtrain upgrade-net INPUT OUTPUT``: write a net of any age in today's form, its weights kept.

Follows caffe's tools/upgrade_net_proto_text.cpp and upgrade_net_proto_binary.cpp.
"""

from __future__ import annotations

import argparse

from dtrain.core.graph.stock_caffe import find_foreign, strip_extensions
from dtrain.core.graph.upgrade import upgrade_net
from dtrain.core.graph.upgrade.inputs import drop_inputs, has_shapes
from dtrain.launcher.net_file import NetFile, read_net_file, write_net_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("input", metavar="INPUT", help="a net, as prototxt or as .caffemodel")
    parser.add_argument(
        "output", metavar="OUTPUT", help="where it goes, of INPUT's kind; comments are not kept"
    )
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--text", action="store_true", default=None, help="write prototxt, whatever INPUT is")
    kind.add_argument("--binary", action="store_true", default=None, help="write binary, whatever INPUT is")
    parser.add_argument(
        "--strip",
        action="store_true",
        default=None,
        help="take out dtrain_param, and name what else stock Caffe refuses",
    )


def run(args: argparse.Namespace) -> int:
    """Upgrade, write, and say what was done."""
    lines: list[str] = []
    file = upgrade(read_net_file(args.input), lines)
    if not lines:
        lines.append(f"{args.input}: nothing is old")
    net = file.document.message
    if args.strip:
        lines.append(f"{args.input}: {strip_extensions(net)} dtrain_param taken out")
        lines += find_foreign(file.document)
    write_net_file(args.output, net, bool(args.binary or (file.is_binary and not args.text)))
    print("\n".join([*lines, f"wrote {args.output}"]))
    return 0


def upgrade(file: NetFile, lines: list[str]) -> NetFile:
    """Return the file with today's fields; each kind of old ones adds to `lines`."""
    net = file.document.message
    if file.is_binary and net.input and not has_shapes(net):
        drop_inputs(net)
        lines.append(f"{file.document.path}: the net-level input fields, without shapes, are left out")
    return file.with_document(upgrade_net(file.document, lines.append))
