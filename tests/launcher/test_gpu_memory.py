"""What is said of a GPU's memory: sentences by hand, and runs on played GPUs that are too small."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dtrain.core.engines.cupy.devices import Room
from dtrain.core.engines.outline import create_outline
from dtrain.core.snapshots import LayerRecord, write_caffemodel
from dtrain.launcher.gpu_memory import GpuMemory, Need, need_of, ran_out, refusal, warning, way_out
from dtrain.launcher.main import main
from dtrain.launcher.simulation.device_memory import PassBytes
from dtrain.proto import caffe_pb2
from tests.core.net_builder import TEST, make_net
from tests.launcher.simulation.nets import DATA, dims, inner_product, loss
from tests.played import cuda
from tests.played.cupy import play_cupy

GB = 10**9
TITLE = 'TRAIN net "n" (n.prototxt)'


def need(least: float, planned: float, **more: object) -> Need:
    """Return the need of a net of 100 images, in GB."""
    in_pass = PassBytes(int(least * GB), int(planned * GB), 0, 0)
    given: dict[str, object] = {"batches": (("data", 100),), **more}
    return Need(TITLE, in_pass=in_pass, **given)  # type: ignore[arg-type]


def room(free: float, total: float = 80) -> Room:
    return Room("GPU 1 (Large)", int(free * GB), int(total * GB))


def test_refusal_names_what_is_free_and_the_largest_batch() -> None:
    assert refusal(need(10, 12), room(6)) == [
        'TRAIN net "n" (n.prototxt): a pass must fit the 6.00 GB that GPU 1 (Large) has free, got blobs of 10.00 GB;'
        ' the largest that fits as planned: batch_size 50 of layer "data"; batch_size 50 with 2 times the iter_size'
        " updates by as many records"
    ]


def test_refusal_is_for_what_can_not_be_alone() -> None:
    assert refusal(need(6, 12), room(6)) == []


def test_warning_is_for_what_may_not_fit() -> None:
    assert warning(need(5, 6), room(6)) == []
    assert warning(need(5, 8), room(6)) == [
        f"{TITLE}: a pass is planned to take 8.00 GB, and GPU 1 (Large) has 6.00 GB free; if that runs out, the"
        ' largest that fits as planned: batch_size 75 of layer "data"; batch_size 50 with 2 times the iter_size'
        " updates by as many records"
    ]


def test_warning_counts_the_workspace() -> None:
    # a tenth of 8 GB, and never more than the engine's limit
    assert warning(need(4, 5, has_workspace=True), room(5.8, total=8)) == []
    (line,) = warning(need(4, 5, has_workspace=True), room(5.7, total=8))
    assert "5.00 GB and a workspace of up to 0.80 GB, and" in line
    assert need(4, 5, has_workspace=True).workspace_bytes(room(6)) == 1 << 30


def test_warning_counts_what_tests_keep_from_graphs() -> None:
    (line,) = warning(need(4, 5, beside=GB), room(5.5))
    assert "5.00 GB, 1.00 GB more for tests, and GPU 1 (Large) has 5.50 GB free; " in line
    assert 'batch_size 90 of layer "data"' in line


def test_check_counts_tests_beside_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    play_cupy(monkeypatch)
    text = DATA.format(data=dims(8, 16), target=dims(8, 32)) + inner_product("ip", "data", 32) + loss("ip")
    nets = [make_net(text, phase, engine=create_outline("cudnn")) for phase in (0, TEST)]
    trained, tested = (need_of(net, False, True).in_pass.planned for net in nets)
    monkeypatch.setattr(cuda, "FREE_BYTES", trained + tested - 1)
    assert GpuMemory().check(nets) == []
    (line,) = GpuMemory().check(nets, captures=True)
    assert line.startswith("TRAIN net")


@pytest.mark.parametrize(
    ("batch_size", "free", "expected"),
    [
        (96, 5, "batch_size 48 of layer"),
        (96, 4.9, "batch_size 32 with 3 times"),
        (97, 5, "batch_size 1 with 97 times"),  # a prime
        (96, 0.05, "not even one image a pass fits; it needs a larger GPU"),
    ],
)
def test_way_out_by_batch(batch_size: int, free: float, expected: str) -> None:
    assert expected in way_out(need(10, 10, batches=(("data", batch_size),)), room(free))


def test_way_out_of_several_layers_names_each() -> None:
    said = way_out(need(10, 10, batches=(("a", 100), ("b", 60))), room(5))
    assert said.startswith(
        'the largest that fits as planned: batch_size 50 of layer "a" and batch_size 30 of layer "b";'
    )


def test_way_out_of_a_net_without_a_reader_counts_images() -> None:
    said = way_out(need(10, 10, batches=(("", 8),), trains=False), room(5))
    assert said == "the largest that fits as planned: a batch of 4"


def test_way_out_by_recomputation_where_that_is_left() -> None:
    assert way_out(need(10, 10, spares=True), room(5)).endswith("; --recompute needs less too")


def test_ran_out_halves_what_was_planned_to_fit() -> None:
    said = ran_out(MemoryError("Out of memory allocating 7 bytes."), room(0.1), [need(1, 2)], room(60))
    assert said == (
        "GPU 1 (Large): the run must fit its 80.00 GB, got Out of memory allocating 7 bytes, with 0.10 GB free;"
        f' {TITLE}: the largest that fits as planned: batch_size 50 of layer "data"; batch_size 50 with 2 times the'
        " iter_size updates by as many records"
    )


def test_ran_out_of_memory_for_params_says_so() -> None:
    said = ran_out(MemoryError("Out of memory"), room(0.1), [], None)
    assert said.endswith(
        "with 0.10 GB free; other processes may have the rest (nvidia-smi), or the net's params are too"
        " many for it"
    )


def test_need_of_a_net_by_its_phase() -> None:
    text = DATA.format(data=dims(8, 16), target=dims(8, 32)) + inner_product("ip", "data", 32) + loss("ip")
    trained = need_of(make_net(text, engine=create_outline("cudnn")), recomputes=False, shares=True)
    assert (trained.batches, trained.trains, trained.spares) == ((("", 8),), True, True)
    tested = need_of(make_net(text, TEST, engine=create_outline("cudnn")), recomputes=False, shares=True)
    assert (tested.trains, tested.spares) == (False, False)
    assert tested.in_pass.least < trained.in_pass.least


@pytest.fixture
def small_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    play_cupy(monkeypatch)
    monkeypatch.setattr(cuda, "FREE_BYTES", 100)


@pytest.mark.usefixtures("small_gpu")
@pytest.mark.parametrize(
    "command",
    [
        ["train", "--solver", "solver.prototxt"],
        ["time", "--model", "net.prototxt", "--phase", "TRAIN"],
    ],
)
def test_run_that_can_not_fit_is_refused_before_it_begins(
    run_folder: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    assert main([*command, "--engine", "cupy"]) == 2
    said = capsys.readouterr().err
    assert (
        'TRAIN net "tiny" (net.prototxt): a pass must fit the 0.00 GB that GPU 0 (Played 0) has free, got'
        in said
    )
    assert "Traceback" not in said


@pytest.mark.usefixtures("small_gpu")
def test_test_that_can_not_fit_is_refused_too(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = LayerRecord(caffe_pb2.LayerParameter(name="other", type="TanH"), [np.zeros(1, np.float32)])
    write_caffemodel(run_folder / "w.caffemodel", "tiny", [other])
    command = ["test", "--model", "net.prototxt", "--weights", "w.caffemodel", "--engine", "cupy"]
    assert main(command) == 2
    said = capsys.readouterr().err
    assert (
        'TEST net "tiny" (net.prototxt): a pass must fit the 0.00 GB that GPU 0 (Played 0) has free' in said
    )
    assert "iter_size" not in said


def test_run_that_runs_out_of_memory_says_what_would_fit(
    run_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    play_cupy(monkeypatch)

    def fail(*_: object, **__: object) -> None:
        raise cuda.OutOfMemoryError("Out of memory allocating 512 bytes (allocated so far: 0 bytes).")

    monkeypatch.setattr("dtrain.core.solver.solver.Solver.solve", fail)
    assert main(["train", "--solver", "solver.prototxt", "--engine", "cupy"]) == 2
    said = capsys.readouterr().err
    assert (
        "GPU 0 (Played 0): the run must fit its 8.59 GB, got Out of memory allocating 512 bytes (allocated"
        in said
    )
    assert "the largest that fits as planned: a batch of 2; batch_size 2 with 2 times the iter_size" in said
    assert "Traceback" not in said
