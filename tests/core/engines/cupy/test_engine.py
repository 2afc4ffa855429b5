"""What the engine cupy has beside the reference engine's code; the operations' own tests run on it, too."""

from __future__ import annotations

import numpy as np
import pytest

from dtrain.core.engines.cupy.dropout import Dropout
from dtrain.core.engines.cupy.engine import CupyEngine
from dtrain.core.engines.cupy.graph import Stage
from dtrain.core.engines.operations import DropoutSpec, SoftmaxSpec
from dtrain.core.engines.reference.softmax import Softmax


def test_create_takes_kernels_of_its_own_before_the_reference_s_code(engine: CupyEngine) -> None:
    assert type(engine.create(DropoutSpec((2, 3), 0.5, 2.0))) is Dropout
    assert type(engine.create(SoftmaxSpec((2, 3), 1))) is Softmax


def test_replays_are_none_on_the_device_unless_somebody_writes(engine: CupyEngine) -> None:
    assert isinstance(engine.replays, engine.xp.ndarray)
    assert engine.replays is engine.replays
    assert (engine.replays.dtype, engine.replays.get().tolist()) == (np.uint64, [0])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("stack", [(), (3,)], ids=["matrices", "stacks"])
def test_products_in_a_graph_are_numpys(engine: CupyEngine, dtype: type, stack: tuple[int, ...]) -> None:
    random, xp = np.random.default_rng(3), engine.xp
    x, y = (random.random((*stack, *shape)).astype(dtype) for shape in ((2, 4), (4, 5)))
    given, found, stage = (xp.asarray(x), xp.asarray(y)), xp.zeros((*stack, 2, 5), dtype), Stage(xp)
    sums = xp.zeros(2, dtype)

    def run() -> None:
        found[...] = engine.matmul(*given)
        engine.matmul(given[0] * 2, given[1], out=found)
        found[...] += engine.matmul(*given)
        sums[...] = engine.sum_squares(given[0].reshape(2, -1))
        sums[...] += engine.sum_squares(given[1].reshape(-1))

    with stage.entered():
        run()
    stage.capture(run).replay()
    engine.synchronize()
    assert found.dtype == sums.dtype == dtype
    tolerance = 10 * np.finfo(dtype).eps
    np.testing.assert_allclose(found.get(), 3 * (x @ y), rtol=tolerance)
    squares = (x.reshape(2, -1) ** 2).sum(axis=1) + (y**2).sum()
    np.testing.assert_allclose(sums.get(), squares, rtol=tolerance)


def test_looks_at_values_unless_the_stream_is_captured(engine: CupyEngine) -> None:
    assert engine.looks_at_values()
    stream = engine.xp.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        looks = engine.looks_at_values()
        stream.end_capture()
    assert not looks
