"""Runs on numbered records: the label of record i is i, so that a test sees who has read what, and when.

The same records lie in an LMDB, behind an image list and in HDF5 files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from dtrain.core.solver.solver import Solver
from dtrain.data.lmdb_writer import write_lmdb
from dtrain.dist.communicator import Communicator
from dtrain.proto import caffe_pb2
from tests.core.solver.ranks import is_first, wait_for_all
from tests.core.solver.small_runs import RANDOM_DATA, SOLVER, Array, Recorder, opened, params_of

NUM_RECORDS = 30
IMAGES = np.random.default_rng(11).integers(0, 256, (NUM_RECORDS, 8, 8), np.uint8)
SOURCES = ("LMDB", "image list", "HDF5")

DATA = {
    "LMDB": """type: "Data" transform_param {{ scale: 0.01 {transform} }} dtrain_param {{ shuffle: {shuffle} }}
  data_param {{ source: "{folder}/lmdb" backend: LMDB batch_size: {batch_size} }}""",
    "image list": """type: "ImageData" transform_param {{ scale: 0.01 {transform} }}
  image_data_param {{ source: "{folder}/list.txt" is_color: false shuffle: {shuffle} batch_size: {batch_size} }}""",
    "HDF5": """type: "HDF5Data"
  hdf5_data_param {{ source: "{folder}/files.txt" shuffle: {shuffle} batch_size: {batch_size} }}""",
}
NET = """name: "numbered"
layer {{ name: "data" top: "data" top: "label" {data} }}
layer {{ name: "conv" type: "Convolution" bottom: "data" top: "h"
  convolution_param {{ num_output: 4 kernel_size: 3 weight_filler {{ type: "xavier" }} }} }}
{middle}
layer {{ name: "relu" type: "ReLU" bottom: "{last}" top: "{last}" }}
layer {{ name: "ip" type: "InnerProduct" bottom: "{last}" top: "ip"
  inner_product_param {{ num_output: {num_records} weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }}
"""


def write_records(folder: Path) -> None:
    """Write lmdb/, list.txt with img/*.png, and files.txt with two HDF5 files of unequal size."""
    h5py, image_of = pytest.importorskip("h5py"), pytest.importorskip("PIL.Image").fromarray
    datums = (
        caffe_pb2.Datum(channels=1, height=8, width=8, label=i, data=image.tobytes())
        for i, image in enumerate(IMAGES)
    )
    write_lmdb(folder / "lmdb", ((b"%08d" % i, datum.SerializeToString()) for i, datum in enumerate(datums)))
    (folder / "img").mkdir()
    for i, image in enumerate(IMAGES):
        image_of(image).save(folder / f"img/{i}.png")
    (folder / "list.txt").write_text("".join(f"img/{i}.png {i}\n" for i in range(NUM_RECORDS)))
    for name, rows in (("a", np.arange(17)), ("b", np.arange(17, NUM_RECORDS))):
        with h5py.File(folder / f"{name}.h5", "w") as file:
            file["data"] = IMAGES[rows, None] / np.float32(100)
            file["label"] = rows.astype(np.float32)
    (folder / "files.txt").write_text("a.h5\nb.h5\n")


@dataclass(frozen=True)
class NumberedRuns:
    """Writes solver and net files into `folder`, on the records that write_records has put into `records`."""

    folder: Path
    records: Path

    def write(
        self,
        source: str,
        solver: str,
        *,
        name: str = "run",
        batch_size: int = 4,
        middle: str = "",
        last: str = "h",
        shuffle: bool = True,
    ) -> str:
        """Write a net that reads `source` and a solver, as SmallRuns does; return the solver's path.

        middle: layers on the blob h; `last` is the top that they end in.
        """
        data = DATA[source].format(
            folder=self.records, transform=RANDOM_DATA, shuffle=str(shuffle).lower(), batch_size=batch_size
        )
        fields = {
            "net": f'"{self.folder / name}.prototxt"',
            "snapshot_prefix": f'"{self.folder / name}"',
            **SOLVER,
        }
        defaults = [f"{field}: {value}\n" for field, value in fields.items() if f"{field}:" not in solver]
        path = self.folder / f"{name}_solver.prototxt"
        if is_first():
            net = NET.format(data=data, middle=middle, last=last, num_records=NUM_RECORDS)
            (self.folder / f"{name}.prototxt").write_text(net)
            path.write_text("".join(defaults) + solver)
        wait_for_all()
        return str(path)

    def state(self, iteration: int, name: str = "run") -> str:
        """Return the path of a snapshot's .solverstate."""
        return str(self.folder / f"{name}_iter_{iteration}.solverstate")


@dataclass
class Way:
    """What a rank has read and come to: the records of each forward pass, and the params after each iteration."""

    records: list[list[int]] = field(default_factory=list)
    params: list[dict[str, Array]] = field(default_factory=list)


def follow(
    path: str, start: Callable[[Solver], object] = lambda solver: None
) -> Callable[[Communicator], Way]:
    """Return the body that runs `start` (a restore, say), then solves, and returns its way."""

    def body(communicator: Communicator) -> Way:
        way = Way()
        recorder = Recorder(lambda solver: way.params.append(params_of(solver)))
        with opened(path, communicator, recorder) as solver:

            def note(layer: int) -> None:
                if layer == 0:
                    way.records.append(solver.net.blobs["label"].data.astype(int).tolist())

            solver.net.callbacks.after_forward.append(note)
            start(solver)
            solver.solve()
        return way

    return body


def stream_of(ways: Sequence[Way]) -> list[int]:
    """Return the records that all ranks have read, in the order of the stream that they share."""
    return np.stack([way.records for way in ways], axis=-1).ravel().tolist()  # (pass, item, rank)
