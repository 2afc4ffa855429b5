"""dtrain convert-mnist: its arguments reach the converter, whose own tests are in tests/data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dtrain.data.source import open_source
from dtrain.launcher.main import main


def write_idx(path: Path, values: np.ndarray) -> None:
    header = bytes([0, 0, 8, values.ndim]) + b"".join(n.to_bytes(4, "big") for n in values.shape)
    path.write_bytes(header + values.astype(np.uint8).tobytes())


def test_convert_mnist_of_small_files_writes_both_databases(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for prefix, count in (("train", 3), ("t10k", 2)):
        write_idx(tmp_path / f"{prefix}-images-idx3-ubyte", np.zeros((count, 4, 4)))
        write_idx(tmp_path / f"{prefix}-labels-idx1-ubyte", np.arange(count))
    out = tmp_path / "out"
    assert main(["convert-mnist", str(tmp_path), str(out)]) == 0
    assert capsys.readouterr().out == f"wrote {out}/train and {out}/test\n"
    assert (len(open_source("LMDB", str(out / "train"))), len(open_source("LMDB", str(out / "test")))) == (
        3,
        2,
    )


def test_convert_mnist_of_an_empty_folder_is_a_users_mistake(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["convert-mnist", str(tmp_path), str(tmp_path / "out")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 4  # one for each file
