"""Solverstates in and out, against the protobuf library."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dtrain.core.errors import UserError
from dtrain.core.snapshots import SolverState, read_solverstate, write_solverstate
from dtrain.proto import caffe_pb2


def test_write_solverstate_is_parsed_by_protobuf_to_the_same_state(
    tmp_path: Path, history: list[np.ndarray]
) -> None:
    write_solverstate(
        tmp_path / "x.solverstate", SolverState(10, "dir/net_iter_10.caffemodel", 2, tuple(history))
    )
    parsed = caffe_pb2.SolverState.FromString((tmp_path / "x.solverstate").read_bytes())
    expected = caffe_pb2.SolverState(iter=10, learned_net="dir/net_iter_10.caffemodel", current_step=2)
    expected.history.add(shape=caffe_pb2.BlobShape(dim=[2, 2]), data=[0.25] * 4)
    expected.history.add(shape=caffe_pb2.BlobShape(dim=[2]), double_data=[1e-300, -7.0])
    assert parsed == expected


def test_read_solverstate_of_protobuf_gives_its_values(tmp_path: Path) -> None:
    state = caffe_pb2.SolverState(iter=5000, learned_net="net.caffemodel", current_step=3)
    state.history.add(num=1, channels=1, height=1, width=2, data=[1, 2])
    (tmp_path / "x.solverstate").write_bytes(state.SerializeToString())
    read = read_solverstate(tmp_path / "x.solverstate")
    assert (read.iter, read.learned_net, read.current_step) == (5000, "net.caffemodel", 3)
    assert [blob.tolist() for blob in read.history] == [[[[[1, 2]]]]]
    assert not read.history[0].flags.owndata


def test_read_solverstate_without_optional_fields_gives_caffes_defaults(tmp_path: Path) -> None:
    (tmp_path / "x.solverstate").write_bytes(caffe_pb2.SolverState(iter=1).SerializeToString())
    assert read_solverstate(tmp_path / "x.solverstate") == SolverState(1, "", 0, ())


def test_solverstate_path_that_is_no_utf8_passes_unchanged(tmp_path: Path) -> None:
    learned_net = b"caf\xe9.caffemodel".decode("utf-8", "surrogateescape")
    write_solverstate(tmp_path / "x.solverstate", SolverState(1, learned_net, 0, ()))
    assert read_solverstate(tmp_path / "x.solverstate").learned_net == learned_net


def test_write_solverstate_over_two_gigabytes_writes_nothing(tmp_path: Path) -> None:
    half = np.broadcast_to(np.float64(0), (2**27,))
    with pytest.raises(UserError, match="x.solverstate: a binary snapshot must be at most 2147483647 bytes"):
        write_solverstate(tmp_path / "x.solverstate", SolverState(1, "", 0, (half, half)))
    assert list(tmp_path.iterdir()) == []


def test_read_solverstate_truncated_or_flipped_raises_nothing_but_user_error(
    tmp_path: Path, history: list[np.ndarray], damaged: Callable[[bytes], list[bytes]]
) -> None:
    path = tmp_path / "x.solverstate"
    write_solverstate(path, SolverState(10, "net.caffemodel", 2, tuple(history)))
    good = path.read_bytes()
    refusals: list[str] = []
    for content in damaged(good):
        path.write_bytes(content)
        try:
            read_solverstate(path)
        except UserError as error:
            refusals.append(str(error))
    assert all(refusal.startswith(f"{path}: file must be") for refusal in refusals)
    # A state has five fields: a cut between two of them leaves a message that is whole.
    assert len(refusals) >= len(good) - 4
