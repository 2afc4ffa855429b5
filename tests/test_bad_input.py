"""Bad input, through the command line: one clear sentence each, exit code 2, nothing harmed.

Each row edits a good solver, net or database; what is printed must be the expected lines and nothing else beside
the log. The parts have tests of their own for every rule; here their way to the user is tested.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import lmdb
import numpy as np
import pytest

from dtrain.data.datum import encode_datum
from dtrain.data.lmdb_writer import write_lmdb
from dtrain.launcher.main import main
from tests.conftest import Mpirun

NET = """\
layer { name: "data" type: "Data" top: "data" top: "label"
  data_param { source: "records" backend: LMDB batch_size: 4 } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 2 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""
SOLVER = """\
net: "net.prototxt"
base_lr: 0.01
lr_policy: "fixed"
max_iter: 8
snapshot: 4
snapshot_prefix: "snap"
"""
NUM_RECORDS = 12


def record(i: int, size: int = 6) -> tuple[bytes, bytes]:
    image = np.random.default_rng(i).integers(0, 256, (1, size, size), np.uint8)
    return b"%08d" % i, encode_datum(image, i % 3)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "net.prototxt").write_text(NET)
    (tmp_path / "solver.prototxt").write_text(SOLVER)
    write_lmdb(tmp_path / "records", map(record, range(NUM_RECORDS)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[str]]:
    """Return the exit code of the command line and what it printed beside INFO."""
    capfd.readouterr()
    code = main(["solver.prototxt", *arguments])
    lines = capfd.readouterr().err.splitlines()
    return code, [line for line in lines if not re.match(r"I\d{4} ", line)]


FOUR_MISTAKES = ";".join(
    [
        "s/kernel_size: 3/kernal_size: 3 num_output: 2/",
        's/num_output: 3/num_output: "three"/',
        "s/batch_size: 4/batch_size: 0/",
    ]
)

# name → edits of the net, edits of the solver, the expected lines ("…": anything)
TEXT_CASES = {
    "net file missing": (
        "",
        's/"net.prototxt"/"nets.prototxt"/',
        ['solver.prototxt:1: nets.prototxt: no such file; did you mean "net.prototxt"?'],
    ),
    "misspelt, mistyped, duplicate and out of range in one go": (
        FOUR_MISTAKES,
        "",
        [
            'net.prototxt:2: layer "data": data_param.batch_size must be at least 1, got 0',
            'net.prototxt:4: layer "conv": convolution_param has no field "kernal_size"; '
            'did you mean "kernel_size"?',
            'net.prototxt:4: layer "conv": convolution_param.num_output is given twice, first in line 4',
            'net.prototxt:6: layer "ip": inner_product_param.num_output must be a whole number, got "three"',
        ],
    ),
    "unknown layer type and a bottom nobody produces": (
        's/"InnerProduct"/"InerProduct"/;s/bottom: "conv"/bottom: "cnov"/',
        "",
        [
            'net.prototxt:5: layer "ip": unknown layer type "InerProduct"; '
            'did you mean "InnerProduct"?; known: …',
            'net.prototxt:5: layer "ip": bottom "cnov" is produced by no earlier layer; '
            'did you mean "conv"? blobs so far: data, label, conv',
        ],
    ),
    "shapes that don't fit": (
        "s/kernel_size: 3/kernel_size: 9/",
        "",
        [
            'net.prototxt:3: layer "conv": convolution_param: the kernel must fit into the padded input… '
            "got kernel 9…"
        ],
    ),
    "labels out of range": (
        "s/num_output: 3/num_output: 2/",
        "",
        [
            'net.prototxt:7: layer "loss": labels must be 0 to 1 (the scores have 2 classes), got 2 '
            'in record "00000002" of records'
        ],
    ),
    "unknown policy and type, and a mistake in the net": (
        's/bottom: "conv"/bottom: "cnov"/',
        's/"fixed"/"fixt"/;s/max_iter/type: "SDG" max_iter/',
        [
            'solver.prototxt:4: unknown solver type "SDG"; did you mean "SGD"?; known: …',
            'solver.prototxt:3: unknown lr_policy "fixt"; did you mean "fixed"?; known: …',
            'net.prototxt:5: layer "ip": bottom "cnov" is produced by no earlier layer; …',
        ],
    ),
}


def edited(text: str, edits: str) -> str:
    """Apply edits of the form s/old/new/, separated by semicolons."""
    for edit in filter(None, edits.split(";")):
        _, old, new, _ = edit.split("/")
        assert old in text, f"{old} is not in the good file"
        text = text.replace(old, new)
    return text


@pytest.mark.parametrize("case", TEXT_CASES)
def test_bad_prototxt_is_told_in_sentences(
    case: str, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    net_edits, solver_edits, expected = TEXT_CASES[case]
    (folder / "net.prototxt").write_text(edited(NET, net_edits))
    (folder / "solver.prototxt").write_text(edited(SOLVER, solver_edits))
    code, lines = run(capfd)
    assert code == 2
    assert len(lines) == len(expected), lines
    for line, pattern in zip(lines, expected, strict=True):
        assert re.fullmatch(re.escape(pattern).replace("…", ".*"), line), line


def empty(path: Path) -> None:
    shutil.rmtree(path)
    lmdb.open(str(path)).close()


def truncated(path: Path) -> None:
    os.truncate(path / "data.mdb", 4096 * 2)


def foreign(path: Path) -> None:
    (path / "data.mdb").write_bytes(b"no database at all" * 1000)


def corrupt(path: Path) -> None:
    shutil.rmtree(path)
    key, value = record(7)
    write_lmdb(path, (record(i) if i != 7 else (key, value[:20]) for i in range(NUM_RECORDS)))


def other_size(path: Path) -> None:
    shutil.rmtree(path)
    write_lmdb(path, (record(i, size=6 if i != 7 else 5) for i in range(NUM_RECORDS)))


DATABASE_CASES = {
    shutil.rmtree: "records: LMDB must exist, got no such file or folder",
    empty: "records: LMDB must have at least one record, got none",
    truncated: r"records: data.mdb must have at least \d+ bytes, got 8192; it is truncated, copy it again",
    foreign: "records: data.mdb must be an LMDB file, got: .*",
    corrupt: 'records: record "00000007": byte 6: field must have at most the 12 bytes that are left, got 36',
    other_size: 'records: record "00000007": size must be 1x6x6 like that of records: record "00000004" '
    "in the same batch, got 1x5x5; give all images one size, or batch_size: 1",
}


@pytest.mark.parametrize("harm", DATABASE_CASES, ids=lambda harm: harm.__name__)
def test_bad_database_is_told_in_a_sentence(
    harm: Callable[[Path], object], folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    harm(folder / "records")
    code, lines = run(capfd)
    assert code == 2
    assert len(lines) == 1, lines
    assert re.fullmatch(f'net.prototxt:1: layer "data": {DATABASE_CASES[harm]}', lines[0]), lines[0]


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize("harm", [truncate, flip_a_bit], ids=lambda harm: harm.__name__)
@pytest.mark.parametrize("file", ["snap_iter_8.caffemodel", "snap_iter_8.solverstate"])
def test_damaged_snapshot_is_refused_and_the_one_before_taken(
    harm: Callable[[Path], None], file: str, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(capfd)[0] == 0
    harm(folder / file)
    code, lines = run(capfd, "--snapshot", "snap_iter_8.solverstate")
    assert code == 2
    assert len(lines) == 1, lines
    assert lines[0].startswith(f"{file}: file must be as its manifest says, got another")
    assert lines[0].endswith("the newest whole snapshot is snap_iter_4.solverstate")
    code, lines = run(capfd, "--resume", "auto")
    assert code == 0
    assert len(lines) == 1, lines
    assert "Skipping the snapshot of iteration 8" in lines[0]


def test_files_of_another_kind_or_net_are_refused(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(capfd)[0] == 0
    before = {path.name: path.read_bytes() for path in folder.glob("snap_*")}
    code, lines = run(capfd, "--snapshot", "snap_iter_8.caffemodel")
    assert (code, len(lines)) == (2, 1)
    assert lines[0].startswith("snap_iter_8.caffemodel: file must be a .solverstate, got a .caffemodel")
    code, lines = run(capfd, "--weights", "snap_iter_8.solverstate")
    assert (code, len(lines)) == (2, 1)
    assert lines[0].startswith("snap_iter_8.solverstate: file must be a .caffemodel, got a .solverstate")
    (folder / "net.prototxt").write_text(NET.replace("num_output: 2 ", "num_output: 5 "))
    code, lines = run(capfd, "--weights", "snap_iter_8.caffemodel")
    assert (code, len(lines)) == (2, 2)
    assert lines[0].startswith(
        'snap_iter_8.caffemodel: param 0 of layer "conv" must be (5, 1, 3, 3) as in this net, got (2, 1, 3, 3)'
    )
    code, lines = run(capfd, "--snapshot", "snap_iter_8.solverstate")
    assert (code, len(lines)) == (2, 1)
    assert "it is of another net or solver type" in lines[0]
    assert {path.name: path.read_bytes() for path in folder.glob("snap_*")} == before


def test_mpirun_of_another_mpi_is_told(
    folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # What a process sees that an mpirun started whose MPI is not the one that mpi4py loads.
    for name, value in {"RANK": "0", "SIZE": "2", "LOCAL_RANK": "0", "LOCAL_SIZE": "2"}.items():
        monkeypatch.setenv(f"OMPI_COMM_WORLD_{name}", value)
    monkeypatch.setattr("dtrain.dist.create.COMMUNICATORS", {"mpi": _communicator_of_another_mpi})
    code, lines = run(capfd)
    assert code == 2
    assert len(lines) == 1
    assert "belongs to another MPI" in lines[0]


def _communicator_of_another_mpi() -> None:
    from dtrain.dist.launch_environment import check_world_size

    check_world_size(os.environ, 1, "MPICH 4.2", "node1")


def test_mistake_on_two_ranks_is_printed_once(folder: Path, mpirun: Mpirun) -> None:
    (folder / "net.prototxt").write_text(edited(NET, "s/kernel_size/kernal_size/"))
    done = mpirun(2, ["-m", "dtrain", "solver.prototxt"], cwd=folder)
    assert done.returncode == 2
    assert done.stderr.count("kernal_size") == 1


def test_corrupt_record_of_one_rank_ends_the_job_with_one_line(folder: Path, mpirun: Mpirun) -> None:
    corrupt(folder / "records")
    done = mpirun(2, ["-m", "dtrain", "solver.prototxt"], cwd=folder)
    assert done.returncode == 3
    line = next(line for line in done.stderr.splitlines() if "00000007" in line)
    assert re.search(r"rank 1 of 2 \(.*\) failed at iteration 0 while .*", line), line
    assert done.stderr.count("00000007") == 1
