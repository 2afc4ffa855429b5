"""Names of layouts whose descriptors are made here, by strides or by oneDNN's own tags."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest

from dtrain.core.engines.onednn.binding import BF16, FLOAT32, Descriptor
from dtrain.core.engines.onednn.layout_names import layout_name
from dtrain.core.engines.onednn.layouts import Layout
from tests.core.engines.onednn.conftest import BLOCKED_BY_16

SHAPE = (2, 20, 3, 4)


@pytest.mark.parametrize(("layout", "name"), [("channels last", "nhwc"), ("blocked", "nChw16c")])
def test_layout_name_of_values_in_blocks_or_channels_last(bench: Any, layout: str, name: str) -> None:
    assert layout_name(bench.memory(layout, SHAPE)) == name


@pytest.mark.parametrize(
    ("shape", "strides", "name"),
    [
        ((2, 5), (1, 2), "cn"),
        ((2, 5, 3), (15, 1, 5), "nwc"),
        ((2, 3, 4, 5, 6), (360, 1, 90, 18, 3), "ndhwc"),
        ((7, 2), (1, 7), "cn"),
    ],
)
def test_layout_name_by_strides_begins_with_the_slowest_axis(
    bench: Any, shape: tuple[int, ...], strides: tuple[int, ...], name: str
) -> None:
    layouts, binding = bench.engine.layouts, bench.engine.binding
    memory = layouts.memory(binding.plain(shape, strides), shape)
    assert isinstance(memory, Layout)
    assert layout_name(memory) == name


@pytest.mark.parametrize(("values", "name"), [(FLOAT32, "nChw16c"), (BF16, "nChw16c bf16")])
def test_layout_name_says_that_values_are_bf16(bench: Any, values: int, name: str) -> None:
    binding, handle = bench.engine.binding, ctypes.c_void_p()
    create = "memory_desc_create_with_tag"
    binding.call(create, ctypes.byref(handle), len(SHAPE), SHAPE, values, BLOCKED_BY_16)
    memory = bench.engine.layouts.memory(Descriptor(binding, handle), SHAPE)
    assert layout_name(memory) == name
