from __future__ import annotations

import gc
import threading
from pathlib import Path

import numpy as np
import pytest

from dtrain.core import pycaffe as caffe
from dtrain.core.errors import UserError
from tests.core.net_builder import inputs
from tests.core.pycaffe.conftest import WEIGHTS, X, Y, Z
from tests.core.solver.small_runs import write_database

# -- making a net ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("level", "stages", "outputs"), [(0, None, ["tanh"]), (2, ["deep"], ["deep"]), (1, ["deep"], ["tanh"])]
)
def test_net_of_a_level_and_stages_has_their_layers(
    folder: Path, level: int, stages: list[str] | None, outputs: list[str]
) -> None:
    assert caffe.Net("net.prototxt", caffe.TEST, level, stages).outputs == outputs
    by_name = caffe.Net(network_file=folder / "net.prototxt", phase=caffe.TEST, level=level, stages=stages)
    assert by_name.outputs == outputs


@pytest.mark.parametrize("form", ["keyword", "old", "copy_from"])
def test_save_writes_weights_that_a_net_takes_in(net: caffe.Net, form: str) -> None:
    net.save("w.caffemodel")
    if form == "keyword":
        other = caffe.Net("net.prototxt", caffe.TEST, weights="w.caffemodel")
    elif form == "old":
        other = caffe.Net("net.prototxt", "w.caffemodel", caffe.TEST)
    else:
        other = caffe.Net("net.prototxt", caffe.TEST)
        other.copy_from("w.caffemodel")
    assert other.params["ip"][0].data.tolist() == WEIGHTS.tolist()
    assert other.outputs == ["tanh"]


@pytest.mark.parametrize("form", ["load_hdf5", "copy_from", "keyword"])
def test_save_hdf5_writes_weights_that_a_net_takes_in_whatever_the_files_name(
    net: caffe.Net, form: str
) -> None:
    pytest.importorskip("h5py")
    net.save_hdf5("weights")
    if form == "keyword":
        other = caffe.Net("net.prototxt", caffe.TEST, weights="weights")
    else:
        other = caffe.Net("net.prototxt", caffe.TEST)
        getattr(other, form)("weights")
    assert other.params["ip"][0].data.tolist() == WEIGHTS.tolist()
    net.save("binary")
    with pytest.raises(UserError, match="binary"):
        other.load_hdf5("binary")


@pytest.mark.parametrize("missing", ["net", "weights"])
def test_net_of_a_missing_file_is_a_runtime_error_as_in_pycaffe(folder: Path, missing: str) -> None:
    file, weights = ("none.prototxt", None) if missing == "net" else ("net.prototxt", "none.caffemodel")
    with pytest.raises(RuntimeError, match=r"^none\.[a-z]+: .*no such file"):
        caffe.Net(file, caffe.TEST, weights=weights)


def test_net_of_an_unknown_phase_says_so(folder: Path) -> None:
    with pytest.raises(UserError, match=r"^Net: phase must be caffe.TRAIN \(0\) or caffe.TEST \(1\), got 2$"):
        caffe.Net("net.prototxt", 2)


def test_net_of_weights_without_a_phase_says_so(folder: Path) -> None:
    with pytest.raises(UserError, match='^Net: a phase must follow the weights, .* got none after "w.caffe'):
        caffe.Net("net.prototxt", "w.caffemodel")


def test_set_random_seed_decides_what_fillers_draw(folder: Path) -> None:
    def draw() -> list[list[float]]:
        weights: list[list[float]] = caffe.Net("net.prototxt", caffe.TRAIN).params["ip"][0].data.tolist()
        return weights

    caffe.set_random_seed(4)
    first, second = draw(), draw()
    caffe.set_random_seed(4)
    assert draw() == first != second
    caffe.set_random_seed(5)
    assert draw() not in (first, second)


def test_net_of_a_subclass_is_made_as_classifiers_make_theirs(net: caffe.Net) -> None:
    class Classifier(caffe.Net):
        def __init__(self, model_file: str, pretrained_file: str) -> None:
            caffe.Net.__init__(self, model_file, caffe.TEST, weights=pretrained_file)

    net.save("w.caffemodel")
    assert Classifier("net.prototxt", "w.caffemodel").params["ip"][0].data.tolist() == WEIGHTS.tolist()


# -- MemoryData -------------------------------------------------------------------------------------------------

MEMORY_NET = """
layer { name: "data" type: "MemoryData" top: "data" top: "label"
  memory_data_param { batch_size: 2 channels: 1 height: 1 width: 3 } }
"""


def memory_net(folder: Path) -> caffe.Net:
    (folder / "memory.prototxt").write_text(MEMORY_NET)
    return caffe.Net(folder / "memory.prototxt", caffe.TEST)


@pytest.mark.parametrize("shape", [(4,), (4, 1, 1, 1)])
def test_set_input_arrays_gives_the_net_its_batches(tmp_path: Path, shape: tuple[int, ...]) -> None:
    net = memory_net(tmp_path)
    data = np.arange(12, dtype=np.float32).reshape(4, 1, 1, 3)
    net.set_input_arrays(data, np.arange(4, dtype=np.float32).reshape(shape))
    for first in (0, 2, 0):
        result = net.forward()
        np.testing.assert_array_equal(result["data"], data[first : first + 2])
        assert result["label"].reshape(-1).tolist() == [first, first + 1]


def test_set_input_arrays_that_do_not_fit_and_a_forward_without_any_say_so(tmp_path: Path) -> None:
    net = memory_net(tmp_path)
    with pytest.raises(
        RuntimeError, match=r"^set_input_arrays: data must have the shape \(n, 1, 1, 3\), got"
    ):
        net.set_input_arrays(np.zeros((4, 1, 1, 2), np.float32), np.zeros(4, np.float32))
    with pytest.raises(RuntimeError, match='memory.prototxt:2: layer "data": has no arrays to read'):
        net.forward()


def test_set_input_arrays_of_a_net_that_begins_otherwise_says_so(net: caffe.Net) -> None:
    with pytest.raises(
        UserError, match=r'^set_input_arrays: the first layer must be of type MemoryData, got "x" of Input$'
    ):
        net.set_input_arrays(X, Z)


# -- callbacks ----------------------------------------------------------------------------------------------------


def test_callbacks_are_called_around_each_layer_with_its_number(net: caffe.Net) -> None:
    calls: list[tuple[str, int]] = []
    for event in ("before_forward", "after_forward", "before_backward", "after_backward"):
        getattr(net, event)(lambda i, event=event: calls.append((event, i)))
    net.before_forward(lambda i: calls.append(("and again", i)))
    net.forward(start="ip")
    net.backward()  # Input layers have no gradient, but are passed
    assert calls == [
        *[(event, i) for i in (2, 3) for event in ("before_forward", "and again", "after_forward")],
        *[(event, i) for i in (3, 2, 1, 0) for event in ("before_backward", "after_backward")],
    ]


def test_after_forward_sees_the_layers_tops(net: caffe.Net) -> None:
    seen = []
    net.after_forward(lambda i: seen.append(net.blobs["y"].data.copy()))
    net.forward(x=X, z=Z)
    assert not seen[1].any()
    np.testing.assert_allclose(seen[2], Y, rtol=1e-6)


# -- sharing ------------------------------------------------------------------------------------------------------


def test_share_with_uses_the_other_nets_params(net: caffe.Net, scoring_net: caffe.Net) -> None:
    scoring_net.share_with(net)
    net.params["ip"][0].data[...] = 7
    assert np.all(scoring_net.params["ip"][0].data == 7)


def test_share_with_a_net_of_other_shapes_says_so(net: caffe.Net, folder: Path) -> None:
    other = folder / "other.prototxt"
    other.write_text((folder / "net.prototxt").read_text().replace("num_output: 1", "num_output: 2"))
    with pytest.raises(UserError, match=r'layer "ip": params .* differ from'):
        net.share_with(caffe.Net(other, caffe.TEST))


def test_blob_assigned_to_a_param_is_shared_from_then_on(net: caffe.Net, scoring_net: caffe.Net) -> None:
    for name in net.params:
        scoring_net.params[name][1] = net.params[name][1]
        scoring_net.params[name][0] = net.params[name][0]
    net.params["ip"][0].data[...] = 0
    net.params["ip"][1].data[...] = 2
    assert scoring_net.forward(["y"], x=X, z=Z)["y"].tolist() == [[2], [2]]


# -- memory and threads -------------------------------------------------------------------------------------------


def test_blobs_and_params_outlive_their_net(net: caffe.Net) -> None:
    net.forward(x=X, z=Z)
    params, blobs = [blob for vec in net.params.values() for blob in vec], list(net.blobs.values())
    del net
    gc.collect()
    assert [blob.data.sum() for blob in params] == [6, 0.5]
    assert blobs[0].data.sum() == X.sum()


def test_net_with_a_data_layer_yields_its_records_and_ends_its_reader_when_dropped(tmp_path: Path) -> None:
    write_database(tmp_path / "lmdb")
    (tmp_path / "net.prototxt").write_text(
        'layer { name: "reading" type: "Data" top: "data" top: "label" '
        f'data_param {{ source: "{tmp_path}/lmdb" backend: LMDB batch_size: 3 }} }}'
    )
    net = caffe.Net(tmp_path / "net.prototxt", caffe.TEST)
    first, second = (net.forward()["data"].copy() for _ in range(2))
    assert first.shape[0] == 3
    assert not np.array_equal(first, second)
    readers = [thread for thread in threading.enumerate() if "reading" in thread.name]
    assert readers
    del net
    gc.collect()
    for reader in readers:
        reader.join(5.0)
        assert not reader.is_alive()


@pytest.mark.parametrize(("phase", "rows"), [(caffe.TRAIN, [1, 3, 5, 7]), (caffe.TEST, [0, 1, 2, 3])])
def test_net_of_one_of_several_solvers_reads_its_share_in_train(
    tmp_path: Path, phase: int, rows: list[int]
) -> None:
    write_database(tmp_path / "lmdb")
    (tmp_path / "net.prototxt").write_text(
        'layer { name: "reading" type: "Data" top: "data" '
        f'data_param {{ source: "{tmp_path}/lmdb" backend: LMDB batch_size: 8 }} }}'
    )
    everything = caffe.Net(tmp_path / "net.prototxt", caffe.TEST).forward()["data"].copy()
    caffe.set_solver_count(2)
    caffe.set_solver_rank(1)
    share = caffe.Net(tmp_path / "net.prototxt", phase).forward()["data"]
    np.testing.assert_array_equal(share[:4], everything[rows])


def test_net_of_a_rank_beyond_the_count_of_solvers_says_so(folder: Path) -> None:
    caffe.set_solver_count(2)
    caffe.set_solver_rank(2)
    with pytest.raises(
        UserError, match=r"set_solver_rank: the rank must be below the count of solvers, 2, got 2"
    ):
        caffe.Net("net.prototxt", caffe.TRAIN)


def test_net_with_inputs_alone_has_no_params(tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(inputs(x=(2, 3)))
    assert list(caffe.Net(tmp_path / "net.prototxt", caffe.TEST).params) == []
