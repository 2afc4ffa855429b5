"""Values that can't be, such as a label that is no class: named where layers look, else NaN in what comes of them.

Layers don't look while a GPU captures a graph (Engine.looks_at_values).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dtrain.core.errors import UserError
from tests.core.layers.layer_harness import Rig, make_rig
from tests.played.cudnn import play_cudnn

LABELS, SCORES = [1.0, 3.0], np.full((2, 3), 1 / 3)
MATRIX = np.eye(3)
# a layer, its bottoms, and what it says of them where it looks
CASES: dict[str, tuple[str, list[Any], str]] = {
    "SoftmaxWithLoss": ("", [SCORES, LABELS], "labels must be 0 to 2 .*, got 3"),
    "SoftmaxWithLoss weighted": (
        "dtrain_param { class_weight: 1 class_weight: 2 class_weight: 3 }",
        [SCORES, LABELS],
        "labels must be 0 to 2 .*, got 3",
    ),
    "FocalLoss": ("", [SCORES, LABELS], "labels must be 0 to 2 .*, got 3"),
    "InfogainLoss": ("", [SCORES, LABELS, MATRIX], "labels must be 0 to 2 .*, got 3"),
    "HingeLoss": ("", [SCORES, LABELS], "labels must be 0 to 2 .*, got 3"),
    "MultinomialLogisticLoss": ("", [SCORES, LABELS], "labels must be 0 to 2 .*, got 3"),
    "Accuracy": ("", [SCORES, LABELS], "labels must be 0 to 2 .*, got 3"),
    "Embed": ("embed_param { input_dim: 3 num_output: 2 }", [LABELS], "whole numbers from 0 to 2 .*, got 3"),
    "BatchReindex": ("", [SCORES, LABELS], "whole numbers from 0 to 1 .*, got 3"),
    "Upsample": ("", [np.ones((1, 1, 1, 1)), np.full((1, 1, 1, 1), 4.0)], "indices 0 to 3 .*, got 4"),
}


@pytest.mark.parametrize("engine", ["cupy", "cudnn"])
@pytest.mark.parametrize("name", CASES)
def test_mistakes_in_values_are_named_where_layers_look(
    monkeypatch: pytest.MonkeyPatch, name: str, engine: str
) -> None:
    with pytest.raises(UserError, match=CASES[name][2]):
        rig_of(monkeypatch, name, engine).forward()


@pytest.mark.parametrize("engine", ["cupy", "cudnn"])
@pytest.mark.parametrize("name", CASES)
def test_mistakes_in_values_make_nan_where_layers_do_not_look(
    monkeypatch: pytest.MonkeyPatch, name: str, engine: str
) -> None:
    rig = rig_of(monkeypatch, name, engine)
    monkeypatch.setattr(rig.layer.engine, "looks_at_values", lambda: False)
    assert np.isnan(rig.forward()[0]).any()


def rig_of(monkeypatch: pytest.MonkeyPatch, name: str, engine: str) -> Rig:
    play_cudnn(monkeypatch)
    fields, bottoms, _ = CASES[name]
    text = f'type: "{name.split()[0]}" {fields}'
    return make_rig(text, bottoms, dtype=np.float32, engine=engine)
