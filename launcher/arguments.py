"""Parsing of a command's arguments, with mistakes as sentences, and the options that several commands have.

Stands before the flow prototxt → graph → net → solver → communicator → snapshot.
"""

from __future__ import annotations

import argparse
import math
import os
import re
from collections.abc import Callable, Sequence
from typing import NoReturn

from dtrain.core.errors import UserError
from dtrain.core.names import nearest
from dtrain.dist.launch_environment import launched_rank
from dtrain.proto import caffe_pb2

_SINGLE_DASH = re.compile(r"-[a-z][a-z_-]+(=.*)?", re.DOTALL)


class CommandParser(argparse.ArgumentParser):
    """A parser whose mistakes are UserErrors, and which prints its help on rank 0 alone."""

    def error(self, message: str) -> NoReturn:
        """Raise UserError instead of ending the process."""
        raise UserError(f"{self.prog}: {message}; see {self.prog} --help")

    def print_help(self, file: object = None) -> None:
        """Print the help, on rank 0."""
        if not launched_rank(os.environ):
            super().print_help()


def make_parser(
    name: str, help_text: str, add_arguments: Callable[[argparse.ArgumentParser], None]
) -> CommandParser:
    """Return the parser of the command `name`."""
    parser = CommandParser(prog=f"dtrain {name}", description=help_text, allow_abbrev=False)
    add_arguments(parser)
    return parser


def parse_arguments(
    name: str,
    help_text: str,
    add_arguments: Callable[[argparse.ArgumentParser], None],
    arguments: Sequence[str],
) -> argparse.Namespace:
    """Parse the arguments of the command `name`; raise UserError for what it does not know.

    Long options may have one dash, as Caffe's flags may.
    """
    parser = make_parser(name, help_text, add_arguments)
    doubled = [f"-{text}" if _SINGLE_DASH.fullmatch(text) else text for text in arguments]
    _check_options(parser, doubled)
    args, left = parser.parse_known_args(doubled)
    if left:
        raise UserError(f'{parser.prog}: argument "{left[0]}" is one too many; see {parser.prog} --help')
    return args


def _check_options(parser: CommandParser, arguments: Sequence[str]) -> None:
    """Raise UserError that names every unknown option; argparse would complain of missing ones first."""
    known = [option for action in parser._actions for option in action.option_strings]
    given = [text.partition("=")[0] for text in arguments if text.startswith("--")]
    unknown = [option for option in given if option not in known]
    if unknown:
        raise UserError(*[_unknown_option(parser.prog, option, known) for option in unknown])


def _unknown_option(prog: str, option: str, known: Sequence[str]) -> str:
    hint = nearest(option, known)
    listed = ", ".join(name for name in known if name.startswith("--"))
    return f"{prog}: unknown option {option}{'; ' + hint if hint else ''}; known: {listed}"


def whole_number(text: str) -> int:
    """Parse a number of iterations: a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'must be a whole number of at least 1, got "{text}"')
    return int(text)


def duration(text: str) -> float:
    """Parse a number of seconds of at least 0."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f'must be a number of seconds of at least 0, got "{text}"')
    return seconds


def add_state_options(parser: argparse.ArgumentParser) -> None:
    """Add --level and --stage, the state in which a net is built."""
    parser.add_argument("--level", type=int, help="level of the net's state, which include rules ask for")
    parser.add_argument("--stage", default="", help="stages of the net's state, separated by commas")


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    """Add --engine and --precision: who computes the net's layers, and in what."""
    parser.add_argument(
        "--engine",
        help="engine that computes the layers: onednn or reference on the CPU, cudnn or cupy on a GPU; the fastest by"
        " default",
    )
    parser.add_argument(
        "--precision",
        choices=[name.lower() for name in caffe_pb2.Precision.DESCRIPTOR.values_by_name],
        help="what convolutions and inner products compute in; what the solver file says, or float32, by default",
    )


def add_promise_options(parser: argparse.ArgumentParser) -> None:
    """Add --strict-float32 and --deterministic: what the engine keeps to (core/engines/engine.py, Promises)."""
    parser.add_argument(
        "--strict-float32",
        action="store_true",
        help="GPUs: multiply float32 values as such, not rounded to TF32; as the solver file says by default",
    )
    parser.add_argument(
        "--deterministic",
        action="store_true",
        help="GPUs: the same bits in each run, at some cost of speed; as the solver file says by default",
    )


def add_gpu_option(parser: argparse.ArgumentParser) -> None:
    """Add --gpu: on which GPUs the ranks of each host compute."""
    parser.add_argument(
        "--gpu",
        metavar="LIST",
        help="GPUs of each host, one for each of its ranks, as 0 or 0,2 or all; what the solver file says by default:"
        " a GPU if there is one, unless solver_mode is CPU",
    )


def add_fuse_option(parser: argparse.ArgumentParser) -> None:
    """Add --no-fuse, against layers that run as one (core/net/fusion.py)."""
    parser.add_argument(
        "--no-fuse",
        action="store_true",
        help="run each layer by itself, also where two at one go are faster",
    )


def add_graph_option(parser: argparse.ArgumentParser) -> None:
    """Add --no-graph, against iterations in one launch (core/solver/captured_iteration.py)."""
    parser.add_argument(
        "--no-graph",
        action="store_true",
        help="GPUs: launch each layer of each iteration, also where one CUDA graph can have all of them",
    )


def add_recompute_option(parser: argparse.ArgumentParser) -> None:
    """Add --recompute, which needs less memory and more time (core/net/recomputation.py)."""
    parser.add_argument(
        "--recompute",
        action="store_true",
        help="keep the data of few blobs for backward, compute the others again; as the solver file says by default",
    )


def chosen_precision(args: argparse.Namespace) -> str | None:
    """Return what --precision says, by the name that the solver's field has for it; None without the option."""
    return args.precision.upper() if args.precision else None


def add_communicator_option(parser: argparse.ArgumentParser) -> None:
    """Add --communicator, how ranks exchange arrays."""
    parser.add_argument(
        "--communicator",
        help="how ranks exchange gradients: single, mpi, window (common memory of one host), hierarchical (inside"
        " each host, then between them), nccl (between GPUs) or nccl-hierarchical (nccl inside each host, mpi between"
        " them); what fits where the ranks are by default",
    )


def split_list(text: str) -> list[str]:
    """Split a comma list; empty items are dropped."""
    return [item for item in text.split(",") if item]
