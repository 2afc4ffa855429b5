"""Layers of one operation. Their values are in the tables; here: when the operation is made and asked."""

from __future__ import annotations

import numpy as np
import pytest

from dtrain.core.engines.operations import ActivationSpec
from tests.core.layers.layer_harness import make_rig


def test_unary_layer_makes_its_operation_anew_for_another_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    rig = make_rig('type: "TanH"', [np.zeros(2)])
    create = rig.layer.engine.create
    monkeypatch.setattr(rig.layer.engine, "create", lambda spec: (asked.append(spec), create(spec))[1])
    rig.feed([np.ones(2)])
    rig.feed([np.ones(3)])
    assert asked == [ActivationSpec((3,), "tanh")]
    np.testing.assert_allclose(rig.forward()[0], np.tanh(np.ones(3)))
