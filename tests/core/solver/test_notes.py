from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from dtrain.core.solver.notes import log_notes, log_notes_of_scripts
from dtrain.core.solver.recipe import Recipe, read_recipe


def notes_on(
    tmp_path: Path,
    fields: str,
    caplog: pytest.LogCaptureFixture,
    log_them: Callable[[Recipe], None] = log_notes,
) -> list[str]:
    path = tmp_path / "solver.prototxt"
    path.write_text(
        f'train_net_param {{ layer {{ name: "x" type: "Input" top: "x" }} }} base_lr: 1 lr_policy: "fixed"\n{fields}'
    )
    with caplog.at_level(logging.INFO):
        log_them(read_recipe(str(path)))
    return [message.replace(str(tmp_path), "") for message in caplog.messages]


def test_log_notes_names_fields_that_are_not_looked_at(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert notes_on(tmp_path, "device_id: 0\nlayer_wise_reduce: false", caplog) == [
        "/solver.prototxt:3: layer_wise_reduce is not looked at: gradients are summed over the ranks in one go, "
        "those of shared params included",
        "/solver.prototxt:2: device_id is not looked at: the flags of the command line choose where to compute",
    ]


def test_log_notes_of_a_solver_without_them_says_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert notes_on(tmp_path, "max_iter: 1", caplog) == []


@pytest.mark.parametrize("recompute", ["true", "false"])
def test_log_notes_of_scripts_says_how_a_net_comes_to_recompute(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, recompute: str
) -> None:
    fields = f"dtrain_param {{ recompute: {recompute} }}"
    assert notes_on(tmp_path, fields, caplog, log_notes_of_scripts) == [
        "/solver.prototxt:2: recompute has no effect yet: nets of scripts keep all blobs; dtrain.core.net."
        "memory_sharing.share_memory([solver.core.net], recomputes=True) lets this one recompute"
    ] * (recompute == "true")
