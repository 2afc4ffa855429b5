"""The command line's entry: choose a command, run it, turn its end into an exit code.

Stands before the flow prototxt → graph → net → solver → communicator → snapshot. Starts quickly: a
command's module, and with it numpy, is imported when the command is chosen and the number of threads is
set.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from dtrain import __version__
from dtrain.core.errors import UserError
from dtrain.core.names import nearest
from dtrain.dist.ending import failure_line
from dtrain.dist.errors import EXIT_BUG, EXIT_CLUSTER, AgreedFailure, exit_code_of
from dtrain.dist.launch_environment import launched_rank
from dtrain.dist.supervisor import announce_exit, can_supervise, leave, supervise, watched
from dtrain.launcher.arguments import parse_arguments
from dtrain.launcher.once import say_once
from dtrain.launcher.threads import set_num_threads


@dataclass(frozen=True)
class Command:
    """A row of the table of commands.

    module: its name in launcher/commands. help: one line. collective: all ranks of an mpirun take part;
    otherwise rank 0 runs the command alone.
    """

    module: str
    help: str
    collective: bool = False


COMMANDS = {
    "train": Command("train", "train a net; short form: dtrain SOLVER …", collective=True),
    "test": Command("test", "score a net with given weights", collective=True),
    "time": Command("time", "time each layer of a net, forward and backward"),
    "summary": Command("summary", "list a net's layers with shapes, params, multiplications and memory"),
    "check": Command("check", "say all that can be said before a run, or what is wrong", collective=True),
    "doctor": Command("doctor", "look at what training needs of this machine", collective=True),
    "device-query": Command("device_query", "list the GPUs of this machine"),
    "convert-mnist": Command("convert_mnist", "turn MNIST's files into databases"),
    "upgrade-net": Command("upgrade_net", "write a net of any age in today's form"),
    "upgrade-solver": Command("upgrade_solver", "write a solver file of any age in today's form"),
    "demo": Command("demo", "train a net on handwritten digits, on two ranks"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (by default the process's own) and return its exit code.

    0 done; 2 the user's mistake; 3 the cluster's; 75 stopped on request with a snapshot written. A user's or
    the cluster's mistake is printed as sentences, once for the job; a bug passes on as the exception that it
    is and so ends the process with a traceback and code 1, one of several ranks with 3.

    Run as the process's own command line, one of several ranks goes on in a child of this process, which supervises
    it and never returns. A program that gives `argv` is not forked, and its rank not watched.
    """
    set_num_threads(os.environ)
    try:
        code = dispatch(sys.argv[1:] if argv is None else argv, may_fork=argv is None)
        sys.stdout.flush()  # now, while a reader that has gone can still be dealt with
    except AgreedFailure as failure:  # rank 0 has said it
        code = failure.exit_code
    except BrokenPipeError:  # who read our output (| head) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except (KeyboardInterrupt, Exception) as error:
        return end_alone(error)
    announce_exit(code)
    return code


def end_alone(error: KeyboardInterrupt | Exception) -> int:
    """Say what ended this process and return its exit code; raise `error` again if it is a bug.

    One of several ranks ends here: on the usual way out it would wait for the others in MPI.
    """
    code, watcher = exit_code_of(error), watched()
    if code != EXIT_BUG:
        say_once("dtrain: interrupted" if isinstance(error, KeyboardInterrupt) else str(error))
    elif watcher:
        trace = "".join(traceback.format_exception(error))
        say_once(trace + failure_line(watcher.place, str(watcher.mirror.read()), error))
        code = EXIT_CLUSTER
    else:
        raise error
    if watcher:
        announce_exit(code)
        leave(code)
    return code


def dispatch(arguments: Sequence[str], may_fork: bool = False) -> int:
    """Run the command that `arguments` begin with; raise UserError if there is no such command or option."""
    is_first = (launched_rank(os.environ) or 0) == 0
    if not arguments or arguments[0] in ("-h", "--help", "help", "--version"):
        if is_first:
            print(f"dtrain {__version__}" if arguments[:1] == ["--version"] else usage())
        return 0
    name, rest = choose_command(arguments)
    command = COMMANDS[name]
    if not (is_first or command.collective):
        return 0
    if may_fork and command.collective and can_supervise(os.environ):
        supervise(os.environ)
    module = load_command(command)
    try:
        args = parse_arguments(name, command.help, module.add_arguments, rest)
    except SystemExit:  # of --help, on every rank
        announce_exit(0)
        raise
    return int(module.run(args))


def choose_command(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """Return the command's name and what follows it; ``SOLVER …`` means ``train --solver SOLVER …``."""
    first, *rest = arguments
    name = first.replace("_", "-")  # Caffe's spelling: device_query
    if name in COMMANDS:
        return name, rest
    if first.endswith(".prototxt") or Path(first).is_file():
        return "train", ["--solver", first, *rest]
    hint = nearest(name, COMMANDS)
    raise UserError(
        f'dtrain: unknown command "{first}"{"; " + hint if hint else ""}; known: {", ".join(COMMANDS)}, '
        "or the path of a solver file"
    )


def load_command(command: Command) -> ModuleType:
    """Import the module that carries out `command`."""
    return importlib.import_module(f"dtrain.launcher.commands.{command.module}")


def usage() -> str:
    """Return what ``dtrain --help`` prints."""
    rows = [f"  {name:<15} {command.help}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "dtrain trains Caffe nets on any number of ranks.",
            "",
            "  dtrain SOLVER [options]                train on this machine, one rank",
            "  mpirun -np 8 dtrain SOLVER [options]   train on eight ranks",
            "  kill -USR1 PID-OF-MPIRUN               let it snapshot and stop",
            "  dtrain COMMAND --help                  the options of a command",
            "",
            "Commands:",
            *rows,
        ]
    )
