"""The options of ``dtrain check --simulate``: from arguments to a question, with all that is wrong with them."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from dtrain.core.errors import Problems, UserError
from dtrain.launcher.arguments import whole_number
from dtrain.launcher.simulation.cluster import Cluster, parse_cluster
from dtrain.launcher.simulation.collectives import ALGORITHMS
from dtrain.launcher.simulation.links import FREE, KNOWN_LINKS, Link, parse_link

MEASURED = "measured"
DEFAULT_EFFICIENCY = 0.4
RING = "ring"
MEASURED_S = 2.0


@dataclass(frozen=True)
class Question:
    """What the user wants to know.

    across, inside: links, None: measured here. algorithm: of all-reduces, None: the cheapest. compute_file or
    flops_per_s and efficiency: where the seconds of layers come from; measured if neither is given. cores, slowdown:
    None unless given. overlaps: False if the user says so. measured_s: how long layers are timed, alone and together.
    """

    cluster: Cluster
    across: Link | None
    inside: Link | None
    algorithm: str | None = None
    compute_file: str | None = None
    flops_per_s: float | None = None
    efficiency: float = DEFAULT_EFFICIENCY
    cores: int | None = None
    slowdown: float | None = None
    overlaps: bool = True
    measured_s: float = MEASURED_S

    @property
    def measures_link(self) -> bool:
        """Whether a link is to be measured with the ranks of this job."""
        return self.across is None or self.inside is None

    @property
    def measures_compute(self) -> bool:
        """Whether the layers are to be timed here."""
        return self.compute_file is None and self.flops_per_s is None


def add_simulation_options(parser: argparse.ArgumentParser) -> None:
    """Add --simulate and what describes the machine to predict for."""
    names = ", ".join(KNOWN_LINKS)
    group = parser.add_argument_group("prediction of an iteration on more ranks")
    group.add_argument(
        "--simulate", metavar="NODESxRANKS", help="predict 1, 2, 4 … ranks up to this, say 512x8"
    )
    group.add_argument(
        "--link",
        help=f"between nodes: BANDWIDTH,LATENCY such as 25GB/s,5us, or {names}; "
        "measured: the ranks of this job (under mpirun) measure it",
    )
    group.add_argument("--local-link", help="the same inside a node (default: as --link)")
    group.add_argument(
        "--algorithm", help=f"of all-reduces: {', '.join(ALGORITHMS)} (default: the cheapest for each bucket)"
    )
    group.add_argument(
        "--compute", metavar="CSV", help="file of layer,forward_ms,backward_ms; else timed here"
    )
    group.add_argument(
        "--flops", type=float, help="operations a second of a rank: layers are counted, not timed"
    )
    group.add_argument(
        "--efficiency", type=float, help=f"share of --flops reached (default: {DEFAULT_EFFICIENCY})"
    )
    group.add_argument("--cores", type=whole_number, help="of a node, if its ranks compute on them")
    group.add_argument(
        "--slowdown",
        type=float,
        help="times a rank computes longer when others compute on its node (default: 1)",
    )
    group.add_argument(
        "--no-overlap", action="store_const", const=True, help="all-reduce and compute one after the other"
    )
    group.add_argument("--json", action="store_const", const=True, help="print the prediction as JSON")


def parse_question(args: argparse.Namespace) -> Question | None:
    """Return the question that `args` ask, None if they ask for no prediction. Raises UserError with all mistakes."""
    if args.simulate is None:
        _refuse_alone(args)
        return None
    problems = Problems()
    if args.link is None:
        problems.add("--simulate: needs --link, the one between nodes")
    cluster = Cluster(1, 1)
    across: Link | None = FREE
    inside: Link | None = FREE
    with problems.collected():
        cluster = parse_cluster(args.simulate)
    with problems.collected():
        across = _parse("--link", args.link)
    with problems.collected():
        inside = across if args.local_link is None else _parse("--local-link", args.local_link)
    _check_algorithm(args, problems)
    _check_compute(args, problems)
    if args.slowdown is not None and not args.slowdown >= 1:
        problems.add(f"--slowdown: must be at least 1, got {args.slowdown:g}")
    problems.raise_if_any()
    return Question(
        cluster,
        across,
        inside,
        RING if MEASURED in (args.link, args.local_link) else args.algorithm,
        args.compute,
        args.flops,
        DEFAULT_EFFICIENCY if args.efficiency is None else args.efficiency,
        args.cores,
        args.slowdown,
        not args.no_overlap,
    )


def _refuse_alone(args: argparse.Namespace) -> None:
    problems = Problems()
    for word in ("link", "local_link", "algorithm", "compute", "flops", "efficiency", "cores", "slowdown"):
        if getattr(args, word) is not None:
            problems.add(f"--{word.replace('_', '-')}: needs --simulate")
    for word in ("no_overlap", "json"):
        if getattr(args, word):
            problems.add(f"--{word.replace('_', '-')}: needs --simulate")
    problems.raise_if_any()


def _parse(option: str, text: str | None) -> Link | None:
    if text is None:
        return FREE  # the link that is missing has been complained of
    return None if text == MEASURED else parse_link(option, text)


def _check_algorithm(args: argparse.Namespace, problems: Problems) -> None:
    if args.algorithm is not None and args.algorithm not in ALGORITHMS:
        problems.add(f'--algorithm: must be one of {", ".join(ALGORITHMS)}, got "{args.algorithm}"')
    elif args.algorithm not in (None, RING) and MEASURED in (args.link, args.local_link):
        problems.add(
            f"--algorithm: must be ring with a measured link, which is fitted to a ring, got {args.algorithm}"
        )


def _check_compute(args: argparse.Namespace, problems: Problems) -> None:
    if args.compute is not None and args.flops is not None:
        problems.add("--compute: must be left out with --flops; choose where the times come from")
    if args.flops is not None and not 0 < args.flops < float("inf"):
        problems.add(f"--flops: must be above 0 and finite, got {args.flops:g}")
    if args.efficiency is not None and args.flops is None:
        problems.add("--efficiency: needs --flops, of which it is the share")
    if args.efficiency is not None and not 0 < args.efficiency <= 1:
        problems.add(f"--efficiency: must be above 0 and at most 1, got {args.efficiency:g}")


def check_world_size(question: Question, world_size: int) -> None:
    """Raise UserError if a link is to be measured by a job of `world_size` ranks that has nobody to send to."""
    if question.measures_link and world_size < 2:
        raise UserError(
            "--link measured: must be asked of several ranks, got 1; mpirun -np 2 dtrain check …, "
            "or give figures such as 10GB/s,5us"
        )
