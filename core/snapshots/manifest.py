"""Remember beside a snapshot what Caffe's own files forget, and the checksums of those files.

Written last at the end of the flow prototxt → graph → net → solver → communicator → snapshot: a snapshot
without a good manifest is no snapshot. A manifest is JSON for people to read; its last line is the checksum
of all before it, so a damaged manifest is noticed as any other file is.
"""

from __future__ import annotations

import json
import math
import os
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dtrain.core.errors import UserError
from dtrain.core.snapshots.checksum import FileRecord

VERSION = 4
"""Version 1 lacked num_averaged, monitor, is_best and is_due, whose defaults then hold; 1 and 2 had no .carried
among their files; 1 to 3 lacked loss_scale.
"""

_READABLE_VERSIONS = (1, 2, 3, VERSION)
_CHECKSUM_KEY = '  "checksum": '


@dataclass(frozen=True)
class MonitorState:
    """How the test output that a run watches has come out so far.

    Attributes:
        last_test: iteration of the last test that counted, -1 before the first.
        best: the best score, None before the first.
        best_iterations: the iterations at which a score was the best so far, the first one first.
        tests_since_best: number of tests since then.
        tests_since_change: number of tests since then or since the last reduction, whichever was later.
        num_reductions: how often the policy "plateau" has lowered the learning rate.
    """

    last_test: int = -1
    best: float | None = None
    best_iterations: tuple[int, ...] = ()
    tests_since_best: int = 0
    tests_since_change: int = 0
    num_reductions: int = 0


@dataclass(frozen=True)
class LossScaleState:
    """What training in float16 has found about the size of its gradients.

    Attributes:
        value: by which the gradient of the loss is multiplied.
        num_finite: how many gradients in a row were finite.
        num_left_out: how many updates were left out since theirs were not.
    """

    value: float = 2.0**16
    num_finite: int = 0
    num_left_out: int = 0


@dataclass(frozen=True)
class Manifest:
    """What a run needs, beyond Caffe's files, to go on as if it had not stopped.

    Attributes:
        iteration: number of updates done.
        world_size: number of ranks that wrote it.
        batch_sizes: for each data layer's name its batch_size per rank.
        positions: for each data layer's name the global position of the next record, counted from the start
            of training over all epochs and ranks.
        epoch: number of whole passes over the training data.
        seed: the run's seed.
        current_step: how many steps the policies multistep and plateau have gone down.
        losses: the window from which the smoothed loss is taken.
        pass_index: number of forward passes done in TRAIN, from which random layers draw.
        files: for what follows the common part of each file's name, such as ".caffemodel", its size and
            checksum; filled in by the store. The files can thus be moved and renamed together.
        version: of this form.
        num_averaged: of how many updates the averaged weights beside the model are; 0: there are none.
        monitor: how the tests came out.
        is_best: whether the snapshot was written, or marked later, for the best score so far.
        is_due: whether it would have been written without that score.
        solver_type: the type that made the history; "" in a manifest of version 1.
        loss_scale: of a run in FLOAT16; None in other precisions.
    """

    iteration: int
    world_size: int
    batch_sizes: Mapping[str, int]
    positions: Mapping[str, int]
    epoch: int
    seed: int
    current_step: int
    losses: tuple[float, ...]
    pass_index: int
    files: Mapping[str, FileRecord] = field(default_factory=dict)
    version: int = VERSION
    num_averaged: int = 0
    monitor: MonitorState = MonitorState()
    is_best: bool = False
    is_due: bool = True
    solver_type: str = ""
    loss_scale: LossScaleState | None = None

    def encode(self) -> bytes:
        """Return the manifest as the bytes of its file."""
        content = asdict(self)
        content["losses"] = [_as_json(loss) for loss in self.losses]
        best = self.monitor.best
        content["monitor"]["best"] = None if best is None else _as_json(best)
        lines = json.dumps(content, indent=2, allow_nan=False).removesuffix("\n}")
        body = f"{lines},\n".encode()
        return body + _last_line(body)


def read_manifest(path: str | os.PathLike[str]) -> Manifest:
    """Read a manifest and make sure that it is as it was written.

    Raises:
        UserError: it is missing, unreadable, damaged, or of a later version of dtrain.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: manifest must be readable, got: {error.strerror}") from None
    return decode_manifest(content, path)


def decode_manifest(content: bytes, path: str | os.PathLike[str]) -> Manifest:
    """Return the manifest of the bytes `content`, as `encode` made them; `path` is named in errors.

    Raises:
        UserError: the bytes are damaged, or of a later version of dtrain.
    """
    body_end = content.rfind(_CHECKSUM_KEY.encode())
    body = content[: max(body_end, 0)]
    if content != body + _last_line(body):
        raise UserError(
            f"{path}: manifest must be as it was written, got other bytes; it is damaged or was edited: "
            "use another snapshot"
        )
    return _decode(path, json.loads(content))


def _as_json(value: float) -> float | str:
    """Return a float as JSON has it: infinities and NaN as words."""
    return value if math.isfinite(value) else str(value)


def _last_line(body: bytes) -> bytes:
    return f'{_CHECKSUM_KEY}"crc32:{zlib.crc32(body):08x}"\n}}\n'.encode()


def _decode(path: str | os.PathLike[str], content: dict[str, Any]) -> Manifest:
    if content["version"] not in _READABLE_VERSIONS:
        raise UserError(
            f"{path}: manifest's version must be at most {VERSION}, got {content['version']}; "
            "read it with the version of dtrain that wrote it"
        )
    del content["checksum"], content["version"]
    content["losses"] = tuple(float(loss) for loss in content["losses"])
    content["files"] = {name: FileRecord(**record) for name, record in content["files"].items()}
    if "monitor" in content:
        content["monitor"] = _decode_monitor(content["monitor"])
    if content.get("loss_scale"):
        content["loss_scale"] = LossScaleState(**content["loss_scale"])
    return Manifest(**content)


def _decode_monitor(content: dict[str, Any]) -> MonitorState:
    best = content["best"]
    content["best"] = None if best is None else float(best)
    content["best_iterations"] = tuple(content["best_iterations"])
    return MonitorState(**content)
