"""dtrain upgrade-net: nets of every age come out as today's, with their weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dtrain.core.graph.upgrade import upgrade_net
from dtrain.core.prototxt import parse_text, read_text
from dtrain.core.snapshots import load_weights
from dtrain.launcher.main import main
from dtrain.proto import caffe_pb2

V0 = """name: "old" # a comment
input: "data" input_dim: [1, 3, 8, 8]
layers { layer { name: "pad" type: "padding" pad: 1 } bottom: "data" top: "pad" }
layers { layer { name: "c" type: "conv" num_output: 2 kernelsize: 3 blobs_lr: 0.1 blobs_lr: 0.30000001
  weight_filler { type: "xavier" } } bottom: "pad" top: "c" }
layers { layer { name: "r" type: "relu" } bottom: "c" top: "c" }
"""
V1 = """layers { name: "d" type: DATA top: "d" top: "l" data_param { source: "db" batch_size: 2 scale: 0.00390625 } }
layers { name: "ip" type: INNER_PRODUCT bottom: "d" top: "ip" param: "w" blobs_lr: 1 blobs_lr: 2
  inner_product_param { num_output: 3 } }
layers { name: "s" type: SOFTMAX_LOSS bottom: "ip" bottom: "l" include { phase: TRAIN } }
"""
TODAY = 'layer { name: "r" type: "ReLU" bottom: "x" top: "x" }'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            V0,
            [
                "layers of 2013 (V0) are read as layers of 2014",
                "`layers` of 2014 (V1) are read as today's `layer`",
                "the net-level input fields are read as an Input layer",
            ],
        ),
        (
            V1,
            [
                "scale, mean_file, crop_size and mirror are read as transform_param",
                "`layers` of 2014 (V1) are read as today's `layer`",
            ],
        ),
        (TODAY, ["nothing is old"]),
    ],
)
def test_upgrade_net_of_a_text_reads_back_as_the_upgrade_in_memory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, said: list[str]
) -> None:
    old, new = tmp_path / "old.prototxt", tmp_path / "new.prototxt"
    old.write_text(text)
    assert main(["upgrade-net", str(old), str(new)]) == 0
    in_memory = upgrade_net(parse_text(text, caffe_pb2.NetParameter)).message
    assert read_text(new, caffe_pb2.NetParameter).message == in_memory
    assert capsys.readouterr().out.splitlines() == [*(f"{old}: {line}" for line in said), f"wrote {new}"]
    assert main(["upgrade-net", str(new), str(new)]) == 0
    assert capsys.readouterr().out.splitlines() == [f"{new}: nothing is old", f"wrote {new}"]
    assert read_text(new, caffe_pb2.NetParameter).message == in_memory


def v1_model() -> caffe_pb2.NetParameter:
    net = caffe_pb2.NetParameter(name="n", input=["data"])
    layer = net.layers.add(name="c", type=caffe_pb2.V1LayerParameter.CONVOLUTION, bottom=["data"], top=["c"])
    layer.blobs.add(num=2, channels=1, height=1, width=2, data=[0.5, 1 / 3, -2, 1e-20])
    return net


def v0_model() -> caffe_pb2.NetParameter:
    net = caffe_pb2.NetParameter(name="n")
    inner = net.layers.add(bottom=["data"], top=["c"]).layer
    inner.name, inner.type = "c", "conv"
    inner.blobs.add(num=2, channels=1, height=1, width=2, data=[0.5, 1 / 3, -2, 1e-20])
    return net


@pytest.mark.parametrize("model", [v0_model(), v1_model()], ids=["V0", "V1"])
@pytest.mark.parametrize("options", [[], ["--binary"], ["--text"]])
def test_upgrade_net_of_a_caffemodel_keeps_its_weights(
    tmp_path: Path, model: caffe_pb2.NetParameter, options: list[str]
) -> None:
    old, new = tmp_path / "old.caffemodel", tmp_path / "new.caffemodel"
    old.write_bytes(model.SerializeToString())
    assert main(["upgrade-net", str(old), str(new), *options]) == 0
    if options == ["--text"]:
        net = read_text(new, caffe_pb2.NetParameter).message
    else:
        net = caffe_pb2.NetParameter.FromString(new.read_bytes())
        before, after = load_weights(old), load_weights(new)
        assert [(layer.name, layer.type, layer.legacy_dims) for layer in after] == [
            ("c", "Convolution", True)
        ]
        np.testing.assert_array_equal(before[0].blobs[0], after[0].blobs[0])
    assert (net.name, len(net.layers), list(net.input)) == ("n", 0, [])
    assert (net.layer[0].type, net.layer[0].bottom, net.layer[0].top) == ("Convolution", ["data"], ["c"])
    assert list(net.layer[0].blobs[0].data) == list(np.array([0.5, 1 / 3, -2, 1e-20], np.float32))


def test_upgrade_net_of_a_caffemodel_says_which_inputs_it_drops(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "old.caffemodel"
    path.write_bytes(v1_model().SerializeToString())
    assert main(["upgrade-net", str(path), str(path)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{path}: the net-level input fields, without shapes, are left out",
        f"{path}: `layers` of 2014 (V1) are read as today's `layer`",
        f"wrote {path}",
    ]


def test_upgrade_net_of_a_text_to_binary_is_its_message(tmp_path: Path) -> None:
    old, new = tmp_path / "old.prototxt", tmp_path / "new"
    old.write_text(TODAY)
    assert main(["upgrade-net", "--binary", str(old), str(new)]) == 0
    assert (
        caffe_pb2.NetParameter.FromString(new.read_bytes())
        == parse_text(TODAY, caffe_pb2.NetParameter).message
    )


def test_upgrade_net_with_strip_takes_out_extensions_and_names_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(
        'layer { name: "d" type: "Data" top: "d" dtrain_param { shuffle: true } }\n'
        'layer { name: "f" type: "FocalLoss" bottom: "d" bottom: "d" }'
    )
    assert main(["upgrade-net", "--strip", str(path), str(path)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{path}: nothing is old",
        f"{path}: 1 dtrain_param taken out",
        f'{path}:2: layer "f": stock Caffe has no type "FocalLoss"',
        f"wrote {path}",
    ]
    assert "dtrain_param" not in path.read_text()
    assert [layer.name for layer in read_text(path, caffe_pb2.NetParameter).message.layer] == ["d", "f"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            'layers { layer { name: "a" type: "conf" } }',
            'net.prototxt:1: layer "a": unknown type "conf" of 2013',
        ),
        (
            'layer { name: "a" }\nlayers { name: "b" }',
            "net.prototxt:2: a net must have `layer` with a string",
        ),
        ("layer { nme: 1 }", 'net.prototxt:1: layer has no field "nme"'),
        ('input: "x"', "net.prototxt:1: input must come with one input_shape"),
    ],
)
def test_upgrade_net_of_a_mistake_is_sentences_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, problem: str
) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(text)
    assert main(["upgrade-net", str(path), str(tmp_path / "out")]) == 2
    assert problem in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_upgrade_net_as_text_and_binary_at_once_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["upgrade-net", "--text", "--binary", "a", "b"]) == 2
    assert "not allowed with" in capsys.readouterr().err
