"""Parsing: what is understood, and the sentence for what is not."""

from __future__ import annotations

import argparse

import pytest

from dtrain.core.errors import UserError
from dtrain.launcher.arguments import (
    add_communicator_option,
    add_engine_options,
    add_gpu_option,
    add_state_options,
    chosen_precision,
    duration,
    parse_arguments,
    split_list,
    whole_number,
)


def add_all(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True)
    parser.add_argument("--iterations", type=whole_number, default=50)
    add_state_options(parser)
    add_engine_options(parser)
    add_gpu_option(parser)
    add_communicator_option(parser)


def parse(*arguments: str) -> argparse.Namespace:
    return parse_arguments("probe", "try things", add_all, arguments)


def test_parse_arguments_with_one_dash_are_caffes_flags() -> None:
    args = parse("-model", "a.prototxt", "-iterations=7", "-level", "-1", "--stage", "x,y")
    assert (args.model, args.iterations, args.level, args.stage) == ("a.prototxt", 7, -1, "x,y")


def test_parse_arguments_without_options_has_defaults() -> None:
    args = parse("--model", "m")
    assert vars(args) == {
        "model": "m",
        "iterations": 50,
        "level": None,
        "stage": "",
        "engine": None,
        "precision": None,
        "gpu": None,
        "communicator": None,
    }


@pytest.mark.parametrize(("arguments", "name"), [([], None), (["--precision", "bf16"], "BF16")])
def test_chosen_precision_is_the_name_that_the_field_has(arguments: list[str], name: str | None) -> None:
    assert chosen_precision(parse("--model", "m", *arguments)) == name


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--model"], "dtrain probe: argument --model: expected one argument; see dtrain probe --help"),
        (
            [],
            "dtrain probe: the following arguments are required: --model; see dtrain probe --help",
        ),
        (
            ["--model", "m", "--iterations=0"],
            'dtrain probe: argument --iterations: must be a whole number of at least 1, got "0"; '
            "see dtrain probe --help",
        ),
        (["--model", "m", "more"], 'dtrain probe: argument "more" is one too many; see dtrain probe --help'),
        (
            ["--model", "m", "--enginee", "x"],
            'dtrain probe: unknown option --enginee; did you mean "--engine"?; known: --help, --model, '
            "--iterations, --level, --stage, --engine, --precision, --gpu, --communicator",
        ),
    ],
)
def test_parse_arguments_that_are_wrong_is_one_sentence(arguments: list[str], sentence: str) -> None:
    with pytest.raises(UserError) as raised:
        parse(*arguments)
    assert raised.value.problems == (sentence,)


def test_parse_arguments_with_help_on_another_rank_prints_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "1")
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    with pytest.raises(SystemExit, match="0"):
        parse("--help")
    assert capsys.readouterr().out == ""


def test_parse_arguments_with_help_prints_the_options(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        parse("--help")
    assert "usage: dtrain probe" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "items"), [("", []), ("a", ["a"]), ("a,b", ["a", "b"]), ("a,,b,", ["a", "b"])]
)
def test_split_list_of_commas_drops_empty_items(text: str, items: list[str]) -> None:
    assert split_list(text) == items


@pytest.mark.parametrize(("text", "seconds"), [("0", 0.0), ("2.5", 2.5), ("1e3", 1000.0)])
def test_duration_of_a_number_is_seconds(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["-1", "nan", "inf", "5m", ""])
def test_duration_of_anything_else_says_what_it_must_be(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="must be a number of seconds of at least 0"):
        duration(text)
