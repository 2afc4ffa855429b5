from __future__ import annotations

from pathlib import Path

import pytest

from dtrain.core.errors import UserError
from dtrain.core.graph.net_recipe import NetRecipe, build_net_recipe, read_net
from dtrain.core.graph.upgrade import upgrade_net
from dtrain.core.prototxt import parse_text
from dtrain.proto import caffe_pb2
from tests.core.net_builder import TEST, TRAIN

NET = """{state}
layer {{ name: "data" type: "Input" top: "data" }}
layer {{ name: "train" type: "TanH" bottom: "data" top: "train" include {{ phase: TRAIN }} }}
layer {{ name: "test" type: "TanH" bottom: "data" top: "test" include {{ phase: TEST }} }}
layer {{ name: "deep" type: "TanH" bottom: "data" top: "deep" include {{ min_level: 1 }} }}
layer {{ name: "a" type: "TanH" bottom: "data" top: "a" include {{ stage: "a" }} }}
layer {{ name: "b" type: "TanH" bottom: "data" top: "b" include {{ stage: "b" }} }}
"""


def names(net: NetRecipe) -> list[str]:
    """Return the layers that are in, without data and splits."""
    return [node.name for node in net.graph.nodes if not node.inserted and node.name != "data"]


@pytest.mark.parametrize(
    ("own", "phase", "level", "stages", "expected"),
    [
        ("", TRAIN, 0, (), ["train"]),
        ("", TEST, 0, (), ["test"]),
        ("", TEST, 1, ("a", "b"), ["test", "deep", "a", "b"]),
        # the caller's phase and level override the file's, stages add up
        ('state { phase: TRAIN level: 5 stage: "a" }', TEST, 0, ("b",), ["test", "a", "b"]),
    ],
)
def test_read_net_in_a_state_has_the_layers_that_are_in(
    tmp_path: Path, own: str, phase: int, level: int, stages: tuple[str, ...], expected: list[str]
) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(NET.format(state=own))
    net = read_net(str(path), phase, level=level, stages=stages)
    assert names(net) == expected
    assert net.graph.state.phase == phase
    assert net.document.where("layer", 1) == f"{path}:3"


def test_read_net_upgrades_old_fields(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text('input: "x" input_dim: [1, 2, 3, 4]')
    assert [node.param.type for node in read_net(str(path), TEST).graph.nodes] == ["Input"]


IN_2013 = """name: "small"
input: "x" input_dim: [2, 3, 9, 9]
layers { layer { name: "pad" type: "padding" pad: 1 } bottom: "x" top: "pad" }
layers { layer { name: "conv" type: "conv" num_output: 4 kernelsize: 3 stride: 2 group: 1
  weight_filler { type: "xavier" } bias_filler { value: 0.1 }
  blobs_lr: 1 blobs_lr: 2 weight_decay: 1 weight_decay: 0 } bottom: "pad" top: "conv" }
layers { layer { name: "relu" type: "relu" } bottom: "conv" top: "conv" }
layers { layer { name: "norm" type: "lrn" local_size: 3 alpha: 0.01 } bottom: "conv" top: "norm" }
layers { layer { name: "pool" type: "pool" pool: AVE kernelsize: 2 stride: 2 } bottom: "norm" top: "pool" }
layers { layer { name: "drop" type: "dropout" dropout_ratio: 0.25 } bottom: "pool" top: "pool" }
layers { layer { name: "ip" type: "innerproduct" num_output: 5 biasterm: false } bottom: "pool" top: "ip" }
layers { layer { name: "prob" type: "softmax" } bottom: "ip" top: "prob" }
"""
IN_2014 = """name: "small"
input: "x" input_shape { dim: [2, 3, 9, 9] }
layers { name: "conv" type: CONVOLUTION bottom: "x" top: "conv" blobs_lr: 1 blobs_lr: 2 weight_decay: 1
  weight_decay: 0 convolution_param { num_output: 4 pad: 1 kernel_size: 3 stride: 2 group: 1
  weight_filler { type: "xavier" } bias_filler { value: 0.1 } } }
layers { name: "relu" type: RELU bottom: "conv" top: "conv" }
layers { name: "norm" type: LRN bottom: "conv" top: "norm" lrn_param { local_size: 3 alpha: 0.01 } }
layers { name: "pool" type: POOLING bottom: "norm" top: "pool" pooling_param { pool: AVE kernel_size: 2 stride: 2 } }
layers { name: "drop" type: DROPOUT bottom: "pool" top: "pool" dropout_param { dropout_ratio: 0.25 } }
layers { name: "ip" type: INNER_PRODUCT bottom: "pool" top: "ip"
  inner_product_param { num_output: 5 bias_term: false } }
layers { name: "prob" type: SOFTMAX bottom: "ip" top: "prob" }
"""
TODAY = """name: "small"
layer { name: "input" type: "Input" top: "x" input_param { shape { dim: [2, 3, 9, 9] } } }
layer { name: "conv" type: "Convolution" bottom: "x" top: "conv" param { lr_mult: 1 decay_mult: 1 }
  param { lr_mult: 2 decay_mult: 0 } convolution_param { num_output: 4 pad: 1 kernel_size: 3 stride: 2 group: 1
  weight_filler { type: "xavier" } bias_filler { value: 0.1 } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "norm" type: "LRN" bottom: "conv" top: "norm" lrn_param { local_size: 3 alpha: 0.01 } }
layer { name: "pool" type: "Pooling" bottom: "norm" top: "pool" pooling_param { pool: AVE kernel_size: 2 stride: 2 } }
layer { name: "drop" type: "Dropout" bottom: "pool" top: "pool" dropout_param { dropout_ratio: 0.25 } }
layer { name: "ip" type: "InnerProduct" bottom: "pool" top: "ip"
  inner_product_param { num_output: 5 bias_term: false } }
layer { name: "prob" type: "Softmax" bottom: "ip" top: "prob" }
"""


@pytest.mark.parametrize("text", [IN_2013, IN_2014], ids=["2013", "2014"])
def test_read_net_of_every_age_gives_the_same_graph(tmp_path: Path, text: str) -> None:
    graphs = []
    for name, content in (("old", text), ("today", TODAY)):
        (tmp_path / name).write_text(content)
        graphs.append(read_net(str(tmp_path / name), TRAIN).graph.to_param())
    assert graphs[0] == graphs[1]


def test_read_net_of_an_old_file_names_the_lines_of_its_mistakes(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(IN_2013.replace('bottom: "norm"', 'bottom: "nrm"'))
    with pytest.raises(
        UserError, match=rf'^{path}:9: layer "pool": bottom "nrm" is produced by no earlier layer'
    ):
        read_net(str(path), TRAIN)


def test_read_net_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none.prototxt: no such file"):
        read_net(str(tmp_path / "none.prototxt"), TEST)


@pytest.mark.parametrize(
    ("own", "given", "expected"),
    [
        ("", {}, ["train"]),
        ("state { phase: TEST }", {}, ["test"]),
        ("state { phase: TEST level: 1 }", {"phase": TRAIN}, ["train", "deep"]),
        ('state { level: 1 stage: "a" }', {"level": 0, "stage": ["b"]}, ["train", "a", "b"]),
    ],
)
def test_build_net_recipe_puts_phase_file_and_caller_above_each_other(
    own: str, given: dict[str, object], expected: list[str]
) -> None:
    document = upgrade_net(parse_text(NET.format(state=own), caffe_pb2.NetParameter))
    state = caffe_pb2.NetState(**given)  # type: ignore[arg-type]
    assert names(build_net_recipe(document, TRAIN, state)) == expected
