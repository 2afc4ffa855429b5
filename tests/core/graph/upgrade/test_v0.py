"""Layers of 2013 become layers of 2014."""

from __future__ import annotations

import logging

import pytest

from dtrain.core.errors import UserError
from dtrain.core.graph.upgrade.v0 import V0_TO_V1
from tests.core.graph.upgrade.documents import message_of, net_of

# Every type with every field that it has, and what it is in 2014.
LAYERS = {
    """name: "d" type: "data" source: "db" batchsize: 4 rand_skip: 9 scale: 0.5 meanfile: "m" cropsize: 8
       mirror: true""": """name: "d" type: DATA data_param { source: "db" batch_size: 4 rand_skip: 9 }
       transform_param { scale: 0.5 mean_file: "m" crop_size: 8 mirror: true }""",
    """name: "i" type: "images" source: "list" batchsize: 4 rand_skip: 9 shuffle_images: true new_height: 5
       new_width: 6 cropsize: 3""": """name: "i" type: IMAGE_DATA transform_param { crop_size: 3 }
       image_data_param { source: "list" batch_size: 4 rand_skip: 9 shuffle: true new_height: 5 new_width: 6 }""",
    """name: "w" type: "window_data" source: "w" batchsize: 2 det_fg_threshold: 0.6 det_bg_threshold: 0.3
       det_fg_fraction: 0.2 det_context_pad: 16 det_crop_mode: "square" """: """name: "w" type: WINDOW_DATA
       window_data_param { source: "w" batch_size: 2 fg_threshold: 0.6 bg_threshold: 0.3 fg_fraction: 0.2
       context_pad: 16 crop_mode: "square" }""",
    'name: "h" type: "hdf5_data" source: "h" batchsize: 3': """name: "h" type: HDF5_DATA
       hdf5_data_param { source: "h" batch_size: 3 }""",
    'name: "o" type: "hdf5_output" hdf5_output_param { file_name: "f" }': """name: "o" type: HDF5_OUTPUT
       hdf5_output_param { file_name: "f" }""",
    """name: "c" type: "conv" num_output: 6 biasterm: false weight_filler { type: "xavier" std: 0.1 }
       bias_filler { value: 2 } pad: 1 kernelsize: 5 group: 2 stride: 3 blobs_lr: 1 blobs_lr: 2 weight_decay: 3
       weight_decay: 0 blobs { num: 1 channels: 1 height: 1 width: 1 data: 7 }""": """name: "c" type: CONVOLUTION
       convolution_param { num_output: 6 bias_term: false weight_filler { type: "xavier" std: 0.1 }
       bias_filler { value: 2 } pad: 1 kernel_size: 5 group: 2 stride: 3 } blobs_lr: 1 blobs_lr: 2 weight_decay: 3
       weight_decay: 0 blobs { num: 1 channels: 1 height: 1 width: 1 data: 7 }""",
    """name: "p" type: "innerproduct" num_output: 6 biasterm: true weight_filler { type: "gaussian" }
       bias_filler { value: 2 } blobs_lr: 1""": """name: "p" type: INNER_PRODUCT inner_product_param {
       num_output: 6 bias_term: true weight_filler { type: "gaussian" } bias_filler { value: 2 } } blobs_lr: 1""",
    'name: "q" type: "pool" pool: STOCHASTIC pad: 1 kernelsize: 3 stride: 2': """name: "q" type: POOLING
       pooling_param { pool: STOCHASTIC pad: 1 kernel_size: 3 stride: 2 }""",
    'name: "r" type: "pool" pool: AVE': 'name: "r" type: POOLING pooling_param { pool: AVE }',
    'name: "l" type: "lrn" local_size: 3 alpha: 0.1 beta: 0.2 k: 2': """name: "l" type: LRN
       lrn_param { local_size: 3 alpha: 0.1 beta: 0.2 k: 2 }""",
    'name: "x" type: "dropout" dropout_ratio: 0.4': """name: "x" type: DROPOUT
       dropout_param { dropout_ratio: 0.4 }""",
    'name: "t" type: "concat" concat_dim: 0': 'name: "t" type: CONCAT concat_param { concat_dim: 0 }',
    'name: "g" type: "infogain_loss" source: "H"': """name: "g" type: INFOGAIN_LOSS
       infogain_loss_param { source: "H" }""",
    **{
        f'name: "n" type: "{old}"': f'name: "n" type: {old.upper()}'
        for old in (
            *("accuracy", "bnll", "euclidean_loss", "flatten", "im2col", "multinomial_logistic_loss", "relu"),
            *("sigmoid", "softmax", "softmax_loss", "split", "tanh"),
        )
    },
}


@pytest.mark.parametrize(("old", "new"), LAYERS.items(), ids=lambda text: text.split('"')[1:4:2])
def test_v0_layer_of_every_type_becomes_its_v1_layer(
    old: str, new: str, caplog: pytest.LogCaptureFixture
) -> None:
    document = V0_TO_V1.apply(net_of(f'layers {{ layer {{ {old} }} bottom: "a" bottom: "b" top: "c" }}'))
    assert document.message == message_of(f'layers {{ {new} bottom: "a" bottom: "b" top: "c" }}')
    assert caplog.messages == []


def test_v0_net_keeps_what_is_not_of_its_layers() -> None:
    rest = 'name: "n" input: "x" input_dim: [1, 2, 3, 4] force_backward: true debug_info: true state { level: 2 }'
    document = V0_TO_V1.apply(net_of(rest + ' layers { layer { name: "a" type: "relu" } }'))
    assert document.message == message_of(rest + ' layers { name: "a" type: RELU }')


def test_v0_is_needed_by_nets_that_have_such_layers() -> None:
    assert V0_TO_V1.is_needed(message_of('layers { layer { name: "a" } }'))
    assert not V0_TO_V1.is_needed(message_of('layers { name: "a" type: RELU }'))
    assert not V0_TO_V1.is_needed(message_of('layer { name: "a" type: "ReLU" }'))


def test_v0_fields_that_a_type_does_not_have_are_left_out_with_their_lines(
    caplog: pytest.LogCaptureFixture,
) -> None:
    text = """layers { layer { name: "r" type: "relu"
      num_output: 3
      new_num: 2 }
      include { phase: TRAIN }
      bottom: "a" top: "b" }"""
    document = V0_TO_V1.apply(net_of(text))
    assert document.message == message_of('layers { name: "r" type: RELU bottom: "a" top: "b" }')
    assert caplog.record_tuples == [
        ("dtrain.core.graph.upgrade.v0", logging.WARNING, text)
        for text in (
            'net.prototxt:2: layer "r": num_output is left out: "relu" has none',
            'net.prototxt:3: layer "r": new_num is left out: "relu" has none',
            'net.prototxt:4: layer "r": include is left out: layers of 2013 (V0) have none',
        )
    ]


def test_v0_unknown_types_are_refused_all_at_once_with_what_may_be_meant() -> None:
    text = 'layers { layer { name: "a" type: "convolution" } }\nlayers { layer { name: "b" type: "inerproduct" } }'
    with pytest.raises(UserError) as error:
        V0_TO_V1.apply(net_of(text))
    first, second = error.value.problems
    assert first.startswith('net.prototxt:1: layer "a": unknown type "convolution" of 2013 (V0); ')
    assert 'did you mean "innerproduct"? known: accuracy, bnll, concat, conv, ' in second


def test_v0_beside_v1_is_refused_with_each_line() -> None:
    text = 'layers { layer { name: "a" type: "relu" } }\nlayers { name: "b" type: RELU }'
    with pytest.raises(UserError) as error:
        V0_TO_V1.apply(net_of(text))
    assert str(error.value) == (
        'net.prototxt:2: layer "b": layers of 2014 (V1) must not stand beside those of 2013 (V0, `layers { layer '
        "{ … } }`); write all in one form"
    )


def test_v0_lines_are_those_of_the_fields_that_were_moved() -> None:
    text = """layers {
      layer {
        name: "c"
        type: "conv"
        weight_filler {
          std: 0.1 }
        stride: 2
        scale: 3 }
      bottom: "x"
      top: "y" }"""
    document = V0_TO_V1.apply(net_of(text))
    lines = {
        ("layers", 0): 1,
        ("layers", 0, "name"): 3,
        ("layers", 0, "type"): 4,
        ("layers", 0, "convolution_param"): 5,
        ("layers", 0, "convolution_param", "weight_filler", "std"): 6,
        ("layers", 0, "convolution_param", "stride"): 7,
        ("layers", 0, "transform_param", "scale"): 8,
        ("layers", 0, "bottom", 0): 9,
        ("layers", 0, "top", 0): 10,
    }
    assert {path: document.line(*path) for path in lines} == lines
