"""Tests of data/convert_digits.py."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from dtrain.data.convert_digits import convert_digits
from dtrain.data.datum import parse_datum
from dtrain.data.errors import DataError
from dtrain.data.lmdb_source import LmdbSource


def test_convert_digits_writes_every_image_once(tmp_path: Path) -> None:
    assert convert_digits(tmp_path / "out") == {"train": 1437, "test": 360}
    digits = load_digits()
    rows = np.arange(1797)
    for name, chosen in (("train", rows[rows % 5 != 0]), ("test", rows[rows % 5 == 0])):
        source = LmdbSource(str(tmp_path / "out" / name))
        datums = [parse_datum(record) for record in source.read_batch(range(len(source)))]
        assert [datum.label for datum in datums] == digits.target[chosen].tolist()
        images = np.stack([datum.image() for datum in datums])
        assert np.array_equal(images[:, 0] / 15, digits.images[chosen])
        del datums
        source.close()


def test_convert_digits_without_scikit_learn_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(DataError, match="pip install scikit-learn"):
        convert_digits(tmp_path / "out")
    assert not (tmp_path / "out").exists()
