"""What the engine cupy has beside the reference engine's code; the operations' own tests run on it, too."""

from __future__ import annotations

import numpy as np

from dtrain.core.engines.cupy.dropout import Dropout
from dtrain.core.engines.cupy.engine import CupyEngine
from dtrain.core.engines.operations import DropoutSpec, SoftmaxSpec
from dtrain.core.engines.reference.softmax import Softmax


def test_create_takes_kernels_of_its_own_before_the_reference_s_code(engine: CupyEngine) -> None:
    assert type(engine.create(DropoutSpec((2, 3), 0.5, 2.0))) is Dropout
    assert type(engine.create(SoftmaxSpec((2, 3), 1))) is Softmax


def test_replays_are_none_on_the_device_unless_somebody_writes(engine: CupyEngine) -> None:
    assert isinstance(engine.replays, engine.xp.ndarray)
    assert engine.replays is engine.replays
    assert (engine.replays.dtype, engine.replays.get().tolist()) == (np.uint64, [0])


def test_looks_at_values_unless_the_stream_is_captured(engine: CupyEngine) -> None:
    assert engine.looks_at_values()
    stream = engine.xp.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        looks = engine.looks_at_values()
        stream.end_capture()
    assert not looks
