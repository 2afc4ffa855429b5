"""Files laid out as parts are files that h5py reads, and take no memory for arrays."""

from __future__ import annotations

import io
import os
import random
import sys
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest

from dtrain.core.errors import UserError
from dtrain.core.snapshots.blob_proto import Part, buffer_of, num_bytes
from dtrain.core.snapshots.hdf5_layout import Hdf5Layout, SparseMemory

PATH = Path("x.h5")


def joined(parts: list[Part]) -> bytes:
    return b"".join(bytes(buffer_of(part)) for part in parts)


ARRAYS = {
    "matrix": np.arange(6, dtype=np.float32).reshape(2, 3),
    "doubles": np.array([1e-300, -2.5]),
    "scalar": np.array(7.5, np.float32),
    "empty": np.zeros((0, 4), np.float32),
    "transposed": np.arange(6, dtype=np.float32).reshape(2, 3).T,
    "pages": np.arange(5000, dtype=np.float32),
}


def test_layout_parts_make_a_file_that_h5py_reads() -> None:
    layout = Hdf5Layout(PATH)
    group = layout.root.create_group("a").create_group("b")
    for name, array in ARRAYS.items():
        layout.add_array(group, name, array)
    layout.add_text(layout.root, "text", b"caf\xe9")
    layout.root["number"] = np.array([5], np.int32)
    parts = layout.finish()
    with h5py.File(io.BytesIO(joined(parts))) as file:
        for name, array in ARRAYS.items():
            read = file[f"a/b/{name}"]
            assert (read.shape, read.dtype.itemsize) == (array.shape, array.dtype.itemsize)
            np.testing.assert_array_equal(read[()], array)
        assert (file["text"][()], file["number"][:].tolist()) == (b"caf\xe9", [5])


def test_layout_keeps_no_time_of_any_dataset() -> None:
    layout = Hdf5Layout(PATH)
    layout.add_array(layout.root, "matrix", ARRAYS["matrix"])
    layout.add_text(layout.root, "text", b"snap_iter_5.caffemodel.h5")
    layout.root["number"] = np.array([5], np.int32)
    with h5py.File(io.BytesIO(joined(layout.finish()))) as file:
        changed = {name: h5py.h5o.get_info(file[name].id).ctime for name in file}
    assert changed == {"matrix": 0, "text": 0, "number": 0}


def test_layout_holds_arrays_themselves_and_is_the_same_each_time() -> None:
    def lay_out() -> list[Part]:
        layout = Hdf5Layout(PATH)
        layout.add_array(layout.root, "pages", ARRAYS["pages"])
        return layout.finish()

    parts = lay_out()
    assert [part is ARRAYS["pages"] for part in parts] == [False, True, False]
    assert joined(parts) == joined(lay_out())


def test_layout_of_six_gigabytes_takes_no_memory() -> None:
    big = np.broadcast_to(np.float32(0), (5 * 2**27,))
    tracemalloc.start()
    layout = Hdf5Layout(PATH)
    for name in ("a", "b"):
        layout.add_array(layout.root, name, big)
    parts = layout.finish()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 5 * 2**30 < num_bytes(parts) < 5 * 2**30 + 10_000
    assert peak < 2**20


def test_layout_of_many_arrays_is_read_by_h5py_one_by_one() -> None:
    layout = Hdf5Layout(PATH)
    for i in range(300):
        layout.add_array(layout.root.create_group(f"layer{i}"), "0", np.full(i % 7 + 1, i, np.float32))
    with h5py.File(io.BytesIO(joined(layout.finish()))) as file:
        assert all((file[f"layer{i}/0"][:] == np.full(i % 7 + 1, i)).all() for i in range(300))


def test_layout_of_integers_is_a_bug() -> None:
    layout = Hdf5Layout(PATH)
    with pytest.raises(TypeError, match="a blob must be float32 or float64, got int64"):
        layout.add_array(layout.root, "a", np.arange(3))


def test_layout_without_h5py_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UserError, match=r"^x.h5: .*pip install 'dtrain\[hdf5\]'"):
        Hdf5Layout(PATH)


def test_sparse_memory_behaves_as_a_file() -> None:
    choose = random.Random(1)
    memory, file = SparseMemory(), io.BytesIO()
    for _ in range(300):
        position, length = choose.randrange(20_000), choose.randrange(9000)
        assert memory.seek(position) == file.seek(position)
        if choose.random() < 0.5:
            data = choose.randbytes(length)
            assert memory.write(data) == file.write(data)
        else:
            assert memory.read(length) == file.read(length)
    assert memory.seek(0, os.SEEK_END) == file.seek(0, os.SEEK_END) == memory.size
    assert memory.between(0, memory.size) == file.getvalue()
    assert memory.truncate(memory.size + 10) == len(file.getvalue()) + 10
    assert memory.between(memory.size - 10, memory.size) == bytes(10)
