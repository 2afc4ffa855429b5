"""Whole predictions through the command line: alone by hand, and measured under mpirun."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dtrain.dist.communicator import Communicator
from dtrain.dist.threads import run_ranks
from dtrain.launcher.main import main
from dtrain.launcher.simulation.answer import share_costs
from dtrain.launcher.simulation.work import Costs
from tests.conftest import Mpirun

TIMES = "layer,forward_ms,backward_ms\ndata,1,0\nip,2,3\nloss,4,5\n"


def test_check_simulate_of_given_times_is_the_sum_by_hand(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run_folder / "times.csv").write_text(TIMES)
    options = "--simulate 4x1 --link 1MB/s,1ms --algorithm ring --compute times.csv --json"
    assert main(["check", "solver.prototxt", *options.split()]) == 0
    document = json.loads(capsys.readouterr().out)
    size = 64 + 64 + 4 * 2 * 3  # a cache line of extra values, one of two biases, and the weights
    assert document["buckets_bytes"] == [size]
    alone_s, two_s, four_s = (row["iteration_s"] for row in document["sizes"])
    assert alone_s == pytest.approx(15e-3)
    assert two_s == pytest.approx(15e-3 + 2 * (1e-3 + size / 2 / 1e6))
    assert four_s == pytest.approx(15e-3 + 6 * (1e-3 + size / 4 / 1e6))


@pytest.mark.parametrize("file", ["solver.prototxt", "net.prototxt"])
def test_check_simulate_prints_a_row_for_each_size(
    run_folder: Path, capsys: pytest.CaptureFixture[str], file: str
) -> None:
    options = "--simulate 2x2 --link eth-10g --local-link nvlink4 --flops 1e9"
    assert main(["check", file, *options.split()]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{file}: SGD solver, engine ")
    assert [line.split()[:2] for line in lines[5:8]] == [["1", "1x1"], ["2", "1x2"], ["4", "2x2"]]
    assert any(line.startswith("  memory of a rank in training (SGD): ") for line in lines[-3:])
    assert "ok" not in lines


def test_check_simulate_with_a_measured_link_on_one_rank_says_what_to_do(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", "solver.prototxt", "--simulate", "1x2", "--link", "measured"]) == 2
    captured = capsys.readouterr()
    assert "--link measured: must be asked of several ranks, got 1; mpirun -np 2 dtrain check" in captured.err
    assert captured.out == ""


def test_check_simulate_with_a_measured_link_measures_it_under_mpirun(
    mpirun: Mpirun, run_folder: Path
) -> None:
    options = "--simulate 1x4 --link measured --json"
    done = mpirun(2, ["-m", "dtrain", "check", "solver.prototxt", *options.split()], cwd=run_folder)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)  # rank 0's alone
    assert [row["world_size"] for row in document["sizes"]] == [1, 2, 4]
    assert document["machine"]["overlaps"] is False
    assert document["machine"]["cores"] >= 1
    assert document["sizes"][1]["all_reduce_s"] > 0
    assert document["sizes"][1]["algorithms"] == ["ring"]
    assert document["memory_bytes"]["scratch"] >= 0


def test_share_costs_gives_all_ranks_those_of_rank_0() -> None:
    costs = Costs((1.0, 2.0), (3.0, 4.0), 5.0, 6.0)

    def body(communicator: Communicator) -> Costs:
        return share_costs(costs if communicator.rank == 0 else None, 2, communicator)

    assert run_ranks(3, body) == [costs, costs, costs]
