"""Windows as prototxt spells them. The mistakes that they refuse are in test_convolution_layers.py and
test_vision_layers.py."""

from __future__ import annotations

import pytest
from google.protobuf import text_format

from dtrain.core.errors import UserError
from dtrain.core.layers.parts.spatial import Window, convolution_window, pooling_window
from dtrain.proto import caffe_pb2

ONES = (1, 1)


@pytest.mark.parametrize(
    ("text", "num_axes", "window"),
    [
        ("kernel_size: 3", 2, Window((3, 3), ONES, (0, 0), ONES)),
        ("kernel_size: 3", 1, Window((3,), (1,), (0,), (1,))),
        ("kernel_size: 3", 0, Window((), (), (), ())),
        ("kernel_size: [3, 2] stride: 2 pad: [0, 1]", 2, Window((3, 2), (2, 2), (0, 1), ONES)),
        ("kernel_h: 3 kernel_w: 5 stride_h: 2 stride_w: 1", 2, Window((3, 5), (2, 1), (0, 0), ONES)),
        ("kernel_size: 3 pad_w: 2", 2, Window((3, 3), ONES, (0, 2), ONES)),
        ("kernel_size: 3 dilation: [1, 2, 4]", 3, Window((3,) * 3, (1,) * 3, (0,) * 3, (1, 2, 4))),
    ],
)
def test_convolution_window_of_each_spelling(text: str, num_axes: int, window: Window) -> None:
    assert convolution_window(text_format.Parse(text, caffe_pb2.ConvolutionParameter()), num_axes) == window


@pytest.mark.parametrize(
    ("text", "window"),
    [
        ("kernel_size: 3", Window((3, 3), ONES, (0, 0), ONES)),
        ("kernel_h: 3 kernel_w: 2 stride: 2 pad_h: 1 pad_w: 0", Window((3, 2), (2, 2), (1, 0), ONES)),
        ("global_pooling: true", Window((6, 7), ONES, (0, 0), ONES)),
    ],
)
def test_pooling_window_of_each_spelling(text: str, window: Window) -> None:
    assert pooling_window(text_format.Parse(text, caffe_pb2.PoolingParameter()), (6, 7)) == window


WINDOW = Window(kernel=(3, 3), stride=(2, 3), pad=(0, 1), dilation=(1, 2))


@pytest.mark.parametrize("sizes", [(3, 3), (5, 9), (6, 10), (4, 5)])
def test_output_sizes_count_the_places_where_the_window_fits(sizes: tuple[int, int]) -> None:
    first = len([start for start in range(0, sizes[0], 2) if start + 3 <= sizes[0]])
    second = len([start for start in range(-1, sizes[1], 3) if start + 5 <= sizes[1] + 1])
    assert WINDOW.output_sizes(sizes, "convolution_param") == (first, second)


@pytest.mark.parametrize(("sizes", "axis"), [((2, 9), 0), ((9, 2), 1)])
def test_output_sizes_without_room_name_the_axis(sizes: tuple[int, int], axis: int) -> None:
    with pytest.raises(UserError, match=f"input 2 and pad {axis} along spatial axis {axis}"):
        WINDOW.output_sizes(sizes, "convolution_param")
