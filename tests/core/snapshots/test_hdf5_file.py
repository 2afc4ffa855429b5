"""HDF5 files of any writer are read, and what is wrong with others is one sentence."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from dtrain.core.errors import UserError
from dtrain.core.snapshots.hdf5_file import StructureError, array_of, is_group, members_of, read_hdf5
from dtrain.core.snapshots.message_file import CAFFEMODEL, SOLVERSTATE

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write one dataset "x" by h5py, with its options."""

    def write_dataset(values: Any, file: dict[str, Any] | None = None, **options: Any) -> Path:
        with h5py.File(tmp_path / "x.h5", "w", **(file or {})) as root:
            root.create_dataset("x", data=values, **options)
        return tmp_path / "x.h5"

    return write_dataset


def read_x(path: Path) -> np.ndarray:
    return read_hdf5(path, CAFFEMODEL, lambda root, view: array_of(root["x"], view))


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", ">f8"])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 4)])
def test_array_of_plain_floats_is_a_view_of_the_file(
    write: Write, dtype: str, shape: tuple[int, ...]
) -> None:
    values = np.random.default_rng(1).random(shape).astype(dtype)
    read = read_x(write(values))
    assert (read.dtype, read.shape) == (values.dtype, shape)
    np.testing.assert_array_equal(read, values)
    assert not read.flags.owndata
    assert not read.flags.writeable


@pytest.mark.parametrize(
    "options",
    [
        {"chunks": (2, 2), "compression": "gzip", "shuffle": True},
        {"chunks": (2, 2), "fletcher32": True},
        {"file": {"libver": "latest"}},
        {"file": {"userblock_size": 1024}},
    ],
)
def test_array_of_other_forms_gives_the_values(write: Write, options: dict[str, Any]) -> None:
    values = np.arange(12, dtype=np.float32).reshape(4, 3)
    read = read_x(write(values, **options))
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, values)
    assert not read.flags.writeable


@pytest.mark.parametrize("dtype", ["i4", "u1", "f2"])
def test_array_of_other_numbers_becomes_float64(write: Write, dtype: str) -> None:
    read = read_x(write(np.array([1, 2, 3], dtype)))
    assert (read.dtype, read.tolist()) == (np.float64, [1, 2, 3])


@pytest.mark.parametrize("values", ["text", np.array([1j]), h5py.Empty("f4")])
def test_array_of_what_is_no_numbers_says_so(write: Write, values: object) -> None:
    with pytest.raises(
        UserError, match="x.h5: file must be a whole .caffemodel in HDF5, got no numbers in /x;"
    ):
        read_x(write(values))


@pytest.mark.parametrize("shape", [(2**40,), (2**33, 2**33)])
def test_array_of_a_shape_beyond_the_file_takes_no_memory(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as root:
        root.create_dataset("x", shape, np.float32, chunks=(2**10,) * len(shape))
    words = re.escape(f"got /x of shape {shape}, which the file is too small for")
    with pytest.raises(UserError, match=words):
        read_x(tmp_path / "x.h5")


def test_members_of_tells_groups_from_datasets_and_refuses_broken_links(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as root:
        root.create_group("g")
        root["a"] = [1.0]
    found = read_hdf5(
        tmp_path / "x.h5",
        CAFFEMODEL,
        lambda root, view: [(name, is_group(m)) for name, m in members_of(root)],
    )
    assert found == [("a", False), ("g", True)]
    with h5py.File(tmp_path / "x.h5", "a") as root:
        root["broken"] = h5py.SoftLink("/nowhere")
    with pytest.raises(UserError, match="got a link to nothing, broken in /; it is truncated"):
        read_hdf5(tmp_path / "x.h5", CAFFEMODEL, lambda root, view: list(members_of(root)))


def test_read_hdf5_of_a_structure_error_is_one_sentence(write: Write) -> None:
    def parse(root: object, view: memoryview) -> None:
        raise StructureError("no /data")

    path = write([1.0])
    with pytest.raises(UserError) as error:
        read_hdf5(path, CAFFEMODEL, parse)
    assert str(error.value) == (
        f"{path}: file must be a whole .caffemodel in HDF5, got no /data; it is truncated, damaged or of another "
        "kind: use an earlier snapshot"
    )


@pytest.mark.parametrize(
    ("names", "kind", "sentence"),
    [
        (["iter", "history/0"], CAFFEMODEL, "got a .solverstate; give the .caffemodel beside it"),
        (["data/conv/0"], SOLVERSTATE, "got a .caffemodel; give the .solverstate beside it"),
    ],
)
def test_read_hdf5_of_the_other_kind_says_what_to_do(
    tmp_path: Path, names: list[str], kind: str, sentence: str
) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as root:
        for name in names:
            root[name] = [1]
    with pytest.raises(UserError, match=f"x.h5: file must be a {kind}, {sentence}"):
        read_hdf5(tmp_path / "x.h5", kind, lambda root, view: None)


def test_read_hdf5_of_a_missing_file_names_its_neighbours(write: Write) -> None:
    path = write([1.0]).with_name("y.h5")
    with pytest.raises(UserError, match=f"^{path}: file must exist, got no such file; .* has: x.h5$"):
        read_x(path)


def test_read_hdf5_lets_bugs_pass(write: Write) -> None:
    with pytest.raises(ZeroDivisionError):
        read_hdf5(write([1.0]), CAFFEMODEL, lambda root, view: 1 // 0)


def test_read_hdf5_without_h5py_names_the_extra(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write([1.0])
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UserError, match=rf"^{path}: .*pip install 'dtrain\[hdf5\]'"):
        read_x(path)


def test_read_hdf5_arrays_outlive_the_reading(write: Write) -> None:
    values = np.arange(100_000, dtype=np.float32)
    path = write(values)
    read = read_x(path)
    path.unlink()
    np.testing.assert_array_equal(read, values)
