"""The options of a prediction: what they ask, and what is wrong with them."""

from __future__ import annotations

import pytest

from dtrain.core.errors import UserError
from dtrain.launcher.arguments import parse_arguments
from dtrain.launcher.simulation.cluster import Cluster
from dtrain.launcher.simulation.links import KNOWN_LINKS, Link
from dtrain.launcher.simulation.options import (
    DEFAULT_EFFICIENCY,
    Question,
    add_simulation_options,
    check_world_size,
    parse_question,
)


def ask(*arguments: str) -> Question | None:
    return parse_question(parse_arguments("check", "help", add_simulation_options, arguments))


def test_parse_question_of_no_options_is_none() -> None:
    assert ask() is None


def test_parse_question_of_links_takes_both() -> None:
    question = ask("--simulate", "2x8", "--link", "ib-ndr", "--local-link", "200GB/s,2us", "--flops", "1e12")
    assert question == Question(
        Cluster(2, 8), KNOWN_LINKS["ib-ndr"].link, Link(2e-6, 200e9), flops_per_s=1e12
    )
    assert question.efficiency == DEFAULT_EFFICIENCY
    assert not question.measures_compute
    assert not question.measures_link


def test_parse_question_of_one_link_uses_it_inside_nodes_too() -> None:
    question = ask(
        "--simulate", "2x8", "--link", "eth-10g", "--cores", "16", "--slowdown", "1.5", "--no-overlap"
    )
    assert question is not None
    assert question.inside == question.across == KNOWN_LINKS["eth-10g"].link
    assert (question.cores, question.slowdown, question.overlaps) == (16, 1.5, False)
    assert question.measures_compute


@pytest.mark.parametrize(
    ("arguments", "is_across_measured", "is_inside_measured"),
    [
        (["--link", "measured"], True, True),
        (["--link", "measured", "--local-link", "pcie4"], True, False),
        (["--link", "eth-10g", "--local-link", "measured"], False, True),
    ],
)
def test_parse_question_of_measured_links_is_a_ring(
    arguments: list[str], is_across_measured: bool, is_inside_measured: bool
) -> None:
    question = ask("--simulate", "1x4", *arguments)
    assert question is not None
    assert (question.across is None, question.inside is None) == (is_across_measured, is_inside_measured)
    assert question.algorithm == "ring"
    assert question.measures_link


def test_parse_question_with_mistakes_tells_all() -> None:
    arguments = (
        "--simulate 2x --link fast --algorithm star --compute x --flops 0 --efficiency 2 --slowdown 0.5"
    )
    with pytest.raises(UserError) as caught:
        ask(*arguments.split())
    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        "--simulate",
        "--link",
        "--algorithm",
        "--compute",
        "--flops",
        "--efficiency",
        "--slowdown",
    ]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ("--simulate 2x8", "--simulate: needs --link, the one between nodes"),
        ("--link ib-hdr", "--link: needs --simulate"),
        ("--json", "--json: needs --simulate"),
        (
            "--simulate 2x8 --link ib-hdr --efficiency 0.5",
            "--efficiency: needs --flops, of which it is the share",
        ),
        (
            "--simulate 2x8 --link measured --algorithm hierarchical",
            "--algorithm: must be ring with a measured link, which is fitted to a ring, got hierarchical",
        ),
    ],
)
def test_parse_question_of_options_that_do_not_go_together_says_why(arguments: str, problem: str) -> None:
    with pytest.raises(UserError) as caught:
        ask(*arguments.split())
    assert caught.value.problems == (problem,)


def test_check_world_size_of_a_lone_rank_that_is_to_measure_says_how() -> None:
    measured = Question(Cluster(1, 2), None, None)
    with pytest.raises(UserError, match="must be asked of several ranks, got 1; mpirun -np 2"):
        check_world_size(measured, 1)
    check_world_size(measured, 2)
    check_world_size(Question(Cluster(1, 2), Link(0, 1), Link(0, 1)), 1)
