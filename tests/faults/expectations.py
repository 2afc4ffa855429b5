"""What a fault must end in, as docs/failures.md has it: the exit code of the job and the line that says why."""

from __future__ import annotations

import re

from tests.faults.fault import REQUESTS, Fault

EXIT_CLUSTER, EXIT_STOPPED = 3, 75

# The names of the layers in the net of small_runs.py.
LAYER_NAMES = {
    "Convolution": "conv",
    "Dropout": "drop",
    "ReLU": "relu",
    "InnerProduct": "ip",
    "SoftmaxWithLoss": "loss",
}

# Every line of a job that says which rank failed, or, for a mistake found by some before training, which rank has it.
FAILURE_LINE = re.compile(r"^.*\brank \d+ (?:of \d+ )?\([^)]+\).*$", re.MULTILINE)

_UNEXPECTED = r"ZeroDivisionError: sabotage \(saboteur\.py:\d+\)"
_NO_MEMORY = r"(?:numpy\.)?\w*MemoryError: .+"
CAUSES = {
    "exception": f"failed {{activity}}: {_UNEXPECTED}",
    "exit": r"failed {activity}: sys\.exit\(5\) was called",
    "kill": r"was killed by SIGKILL {activity}(?:; .+)?",
    "stop": r"was stopped for \d+ s \(SIGSTOP or its like\) {activity}; .+",
    "memory": f"failed {{activity}}: {_NO_MEMORY}",
    "disk": "failed {activity}: cannot write snapshot .+: File too large; .+",
}

# What rank 0 says where mistakes are found before training, and of whom.
MISTAKES = {
    "database": r"rank {rank} \({host}\): .*lmdb.*",
    "world size": r"rank {rank} of {num_ranks} \({host}\): OMPI_COMM_WORLD_SIZE must be .+, got \d+; .+",
    "net": r"net and solver must be the same on all ranks, differs from rank 0 \({host}\)"
    r" on rank {rank} \({host}\); .+",
}


def expected_exit_code(fault: Fault) -> int:
    """Return the exit code of a job that `fault` befalls."""
    return EXIT_STOPPED if fault.kind in REQUESTS else EXIT_CLUSTER


def expected_line(fault: Fault, host: str) -> str:
    """Return the pattern of the whole line that says what happened on `host`."""
    places = {"rank": fault.rank, "num_ranks": fault.num_ranks, "host": re.escape(host)}
    if fault.kind in MISTAKES:
        return MISTAKES[fault.kind].format(**places)
    if _is_in_users_setup(fault):
        cause = {"exception": "ZeroDivisionError", "memory": r"\w*MemoryError"}[fault.kind]
        return (
            rf'rank {fault.rank} \({places["host"]}\): .*layer "saboteur": Saboteur\.setup raised {cause}.*'
        )
    cause = CAUSES[fault.kind].replace("{activity}", expected_activity(fault))
    if fault.place == "python" and fault.kind == "exception":
        cause = cause.replace(
            _UNEXPECTED, r'.*layer "saboteur": Saboteur\.forward raised ZeroDivisionError: .+'
        )
    return rf"rank {fault.rank} of {fault.num_ranks} \({places['host']}\) {cause}"


def _is_in_users_setup(fault: Fault) -> bool:
    """Return whether an exception is raised by the setup of a user's layer."""
    return fault.place == "start" and fault.kind in ("exception", "memory")


def expected_activity(fault: Fault) -> str:
    """Return the pattern of when it happened, and while doing what; for threads of their own that may be anything."""
    layer = LAYER_NAMES[fault.layer_type]
    doing = {
        "forward": f'computing layer "{layer}"',
        "test": f'computing layer "{layer}"',
        "backward": f'computing the gradient of layer "{layer}"',
        "all_reduce": r"summing bucket \d+ of \d+ \(.+\)",
        "python": 'computing layer "saboteur"',
    }
    if fault.place == "start":
        return "before the first iteration while .+"
    if fault.place in doing:
        return f"at iteration {fault.iteration} while {doing[fault.place]}"
    return r"(?:at iteration \d+|before the first iteration) while .+"
