"""Caffemodels in HDF5, in and out, against h5py, Caffe's own calls and a file that Caffe wrote."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from dtrain.core.errors import UserError
from dtrain.core.snapshots import LayerRecord, read_hdf5_model, write_hdf5_model
from dtrain.core.snapshots.blob_proto import num_bytes
from dtrain.core.snapshots.hdf5_model import encode_hdf5_model
from dtrain.proto import caffe_pb2
from tests.core.snapshots.h5lt import opened

RECORDED = Path(__file__).with_name("recorded")
ONE = np.ones(1, np.float32)


def record(name: str, *blobs: np.ndarray, **fields: object) -> LayerRecord:
    return LayerRecord(caffe_pb2.LayerParameter(name=name), list(blobs), **fields)  # type: ignore[arg-type]


def test_write_hdf5_model_is_read_by_caffes_calls(tmp_path: Path, layers: list[LayerRecord]) -> None:
    write_hdf5_model(tmp_path / "x.h5", "n", layers)
    with opened(tmp_path / "x.h5") as file:
        assert file.names(b"/") == [b"data"]
        assert file.names(b"data") == [b"conv", b"ip", b"relu"]
        assert [file.names(b"data/" + name) for name in (b"conv", b"ip", b"relu")] == [
            [b"0", b"1"],
            [b"0"],
            [],
        ]
        np.testing.assert_array_equal(file.floats(b"data/conv/0"), layers[0].blobs[0])
        np.testing.assert_array_equal(file.floats(b"data/conv/1"), layers[0].blobs[1])
        np.testing.assert_allclose(file.floats(b"data/ip/0"), layers[2].blobs[0], rtol=1e-7)


def test_read_hdf5_model_gives_what_was_written(tmp_path: Path, layers: list[LayerRecord]) -> None:
    write_hdf5_model(tmp_path / "x.h5", "n", layers)
    read = {layer.name: layer for layer in read_hdf5_model(tmp_path / "x.h5")}
    assert sorted(read) == ["conv", "ip", "relu"]
    for want in layers:
        blobs = read[want.parameter.name].blobs
        assert [blob.dtype for blob in blobs] == [blob.dtype for blob in want.blobs]
        assert [blob.tolist() for blob in blobs] == [blob.tolist() for blob in want.blobs]


def test_read_hdf5_model_of_caffe_gives_its_values() -> None:
    read = {layer.name: layer.blobs for layer in read_hdf5_model(RECORDED / "snap_iter_5.caffemodel.h5")}
    with np.load(RECORDED / "adam_params_5.npz") as params:
        assert {f"{name}_{i}" for name, blobs in read.items() for i in range(len(blobs))} == set(params)
        for name, blobs in read.items():
            for i, blob in enumerate(blobs):
                np.testing.assert_array_equal(blob, params[f"{name}_{i}"])
    assert [name for name, blobs in read.items() if not blobs] == ["act", "data", "label", "loss", "relu"]


def test_write_hdf5_model_has_the_structure_of_caffes(tmp_path: Path) -> None:
    caffes = RECORDED / "snap_iter_5.caffemodel.h5"
    layers = [record(layer.name, *layer.blobs) for layer in read_hdf5_model(caffes)]
    write_hdf5_model(tmp_path / "x.h5", "n", layers)
    found: list[dict[str, object]] = []
    for path in (caffes, tmp_path / "x.h5"):
        with h5py.File(path) as root:
            found.append({})
            root.visititems(lambda name, item: found[-1].update({name: (item.__class__, dict(item.attrs))}))
    assert found[0] == found[1]


def test_write_hdf5_model_leaves_shared_params_out_but_keeps_their_diffs(tmp_path: Path) -> None:
    sharing = record("b", ONE, ONE * 2, diffs=[ONE * 3, ONE * 4], shared={0})
    write_hdf5_model(tmp_path / "x.h5", "n", [record("a", ONE, diffs=[ONE * 5]), sharing, record("c")])
    with h5py.File(tmp_path / "x.h5") as root:
        assert [sorted(root[f"data/{name}"]) for name in "abc"] == [["0"], ["1"], []]
        assert [sorted(root[f"diff/{name}"]) for name in "abc"] == [["0"], ["0", "1"], []]
        assert [root[f"diff/b/{i}"][0] for i in "01"] == [3, 4]
    blobs = read_hdf5_model(tmp_path / "x.h5")[1].blobs
    assert (blobs[0], blobs[1].tolist()) == (None, [2])


def test_write_hdf5_model_with_missing_diffs_is_a_bug(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='layer "a": 1 diffs for 2 blobs'):
        write_hdf5_model(tmp_path / "x.h5", "n", [record("a", ONE, ONE, diffs=[ONE])])


def test_hdf5_model_names_with_slashes_are_nested_groups(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = ["inception/1x1", "inception/3x3/reduce", "inception/3x3", "plain", "inception/none"]
    layers = [record(name, *[ONE * i] * (name != "inception/none")) for i, name in enumerate(names)]
    write_hdf5_model(tmp_path / "x.h5", "n", layers)
    read = {
        layer.name: [blob.tolist() for blob in layer.blobs] for layer in read_hdf5_model(tmp_path / "x.h5")
    }
    assert read == {name: [[i]] * (name != "inception/none") for i, name in enumerate(names)}
    assert caplog.messages == [
        f'{tmp_path / "x.h5"}: Caffe finds no layer in HDF5 whose name has a /, such as "inception/1x1"'
    ]


def test_write_hdf5_model_names_that_hdf5_cannot_hold_are_refused_all_at_once(tmp_path: Path) -> None:
    layers = [record(name, ONE) for name in ("twice", "twice", "", "/x", "a//b", "a/.", "a\0b", "c", "c/0/d")]
    with pytest.raises(UserError) as error:
        write_hdf5_model(tmp_path / "x.h5", "n", layers)
    path, fix = tmp_path / "x.h5", "rename the layer or set snapshot_format: BINARYPROTO"
    assert error.value.problems == (
        f'{path}: layers must have names of their own in HDF5, got "twice" twice; {fix}',
        *(
            f'{path}: layer "{name}" can\'t be a group in HDF5, by its name; {fix}'
            for name in ("", "/x", "a//b", "a/.", "a\0b")
        ),
        f'{path}: layer "c/0/d" has the path of another layer\'s param in HDF5; {fix}',
    )
    assert list(tmp_path.iterdir()) == []


def test_encode_hdf5_model_has_no_limit_of_two_gigabytes(tmp_path: Path) -> None:
    big = np.broadcast_to(np.float32(0), (2**30,))
    parts = encode_hdf5_model(tmp_path / "x.h5", "n", [record("a", big), record("b", ONE)])
    assert 4 * 2**30 < num_bytes(parts) < 4 * 2**30 + 5000
    assert any(part is big for part in parts)


@pytest.mark.parametrize(
    ("datasets", "got"),
    [
        ({"label": [1.0]}, "no group /data"),
        ({"data": [[1.0, 2.0]]}, "no group /data"),
        ({"data/0": [1.0]}, "a dataset /data/0 where layers' groups should be"),
        ({"data/conv/weight": [1.0]}, "a dataset /data/conv/weight where only params' numbers should be"),
        ({"data/conv/1000": [1.0]}, "a dataset /data/conv/1000 where only params' numbers should be"),
        ({"data/conv/0": "text"}, "no numbers in /data/conv/0"),
    ],
)
def test_read_hdf5_model_of_another_content_says_so(
    tmp_path: Path, datasets: dict[str, object], got: str
) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as root:
        for name, values in datasets.items():
            root[name] = values
    with pytest.raises(UserError, match=f"^{path}: file must be a whole .caffemodel in HDF5, got {got};"):
        read_hdf5_model(path)


def test_read_hdf5_model_of_a_group_in_itself_says_so(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as root:
        layer = root.create_group("data/a")
        layer["again"] = root["data"]
    with pytest.raises(UserError, match="got groups that hold themselves;"):
        read_hdf5_model(tmp_path / "x.h5")


def test_read_hdf5_model_truncated_or_flipped_raises_nothing_but_user_error(
    tmp_path: Path, damaged: Callable[[bytes], list[bytes]]
) -> None:
    path = tmp_path / "x.caffemodel.h5"
    write_hdf5_model(path, "n", [record("conv", ONE), record("relu")])
    contents = damaged(path.read_bytes())[::37]
    refusals = []
    for content in contents:
        path.write_bytes(content)
        try:
            read_hdf5_model(path)
        except UserError as error:
            refusals.append(str(error))
    assert all(refusal.startswith(f"{path}: file must be") for refusal in refusals)
    assert len(refusals) > len(contents) // 4
