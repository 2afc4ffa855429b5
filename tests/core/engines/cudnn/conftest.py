"""What the tests of the cuDNN engine share: engines on a played cuDNN, the reference, and the real library if it is
here.

The same operations are tested in float32, with formulas of their own, in ../reference; here it is about 16 bits,
about what is fused, and about how cuDNN is asked.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

from dtrain.core.blob import Blob
from dtrain.core.engines import create_engine
from dtrain.core.engines.cudnn.engine import CudnnEngine
from dtrain.core.engines.cudnn.library import Library, load_library
from dtrain.core.errors import MissingLibrary
from tests.played.cudnn import PlayedCudnn, play_cudnn

Array = NDArray[Any]
ROUNDOFF = {
    "FLOAT32": 2.0**-17,
    "BF16": 2.0**-8,
    "FLOAT16": 2.0**-11,
}  # what results may be off, of the largest


class Bench:
    """An engine on a played cuDNN, and the reference in float64."""

    def __init__(self, played: PlayedCudnn | None, precision: str, **choices: Any) -> None:
        self._played = played
        self.engine = CudnnEngine(precision, **choices)
        self.reference = create_engine("reference")
        self.tolerance = 2 * ROUNDOFF[precision]
        self.random = np.random.default_rng(5)

    @property
    def played(self) -> PlayedCudnn:
        """The played cuDNN, for tests of how it is asked; there is none on a real GPU."""
        if self._played is None:
            pytest.skip("how cuDNN is asked is not seen on a real GPU")
        return self._played

    def normal(self, *shape: int) -> Array:
        """Draw values that have few bits, and so are the same in each type."""
        return self.random.standard_normal(shape).astype(ml_dtypes.bfloat16).astype(np.float64)

    def pair(self, data: Array, diff: Array | float = 0.0, last: bool = True) -> tuple[Blob, Blob]:
        """Return equal blobs for the engine, with channels last if it has that, and for the reference."""
        mine, exact = Blob(data.shape), Blob(data.shape, np.float64)
        exact.data[...], exact.diff[...] = data, diff
        self.place(mine, data, diff, last)
        return mine, exact

    def place(self, blob: Blob, data: Array, diff: Array | float = 0.0, last: bool = True) -> None:
        """Give a blob values on the device, where nobody else holds them."""
        plain = self.engine.memories.plain
        wide = np.broadcast_to(np.asarray(diff), data.shape)
        for write, read, values in (
            (blob.data_tensor.write, blob.data_tensor.read, data),
            (blob.diff_tensor.write, blob.diff_tensor.read, wide),
        ):
            write(plain)[...] = self.engine.xp.asarray(values.astype(np.float32))
            if last and data.ndim > 2:
                read(self.engine.memories.best(data.shape))

    def expect(self, actual: Array, expected: Array, factor: float = 1.0) -> None:
        """Assert that values agree but for what rounding does to the largest."""
        assert actual.shape == expected.shape
        scale = np.abs(expected).max(initial=1.0)
        np.testing.assert_allclose(actual, expected, rtol=0, atol=factor * self.tolerance * scale)

    def is_last(self, tensor: Any, shape: tuple[int, ...]) -> bool:
        """Return whether the newest values lie with channels last."""
        return self.engine.memories.of(tensor, shape) is not self.engine.memories.plain


@pytest.fixture
def make_bench(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Bench]:
    """Return what makes an engine in some precision, on a cuDNN that refuses some functions."""

    def make(
        precision: str = "FLOAT32",
        refused: tuple[str, ...] = (),
        refused_in_halves: tuple[str, ...] = (),
        **choices: Any,
    ) -> Bench:
        played, _ = play_cudnn(monkeypatch, refused, refused_in_halves)
        return Bench(played, precision, **choices)

    return make


@pytest.fixture(params=list(ROUNDOFF))
def bench(request: pytest.FixtureRequest, make_bench: Callable[..., Bench]) -> Bench:
    """Return an engine in each precision in turn."""
    return make_bench(request.param)


@pytest.fixture
def library() -> Library:
    """Return the real cuDNN, which needs no GPU for its descriptors."""
    try:
        return load_library()
    except MissingLibrary:
        pytest.skip("cuDNN is not installed")


@pytest.fixture
def headers(library: Library) -> str:
    """Return the text of the headers beside the real cuDNN."""
    folder = Path(library.path).parents[1] / "include"
    if not (folder / "cudnn_graph.h").exists():
        pytest.skip(f"cuDNN's headers are not in {folder}")
    names = ("cudnn_graph.h", "cudnn_ops.h", "cudnn_cnn.h")
    return "\n".join((folder / name).read_text(encoding="utf-8") for name in names)
