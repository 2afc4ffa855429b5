from __future__ import annotations

import ctypes
import gc
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dtrain.core.engines.cudnn import declarations as dnn
from dtrain.core.engines.cudnn.binding import Binding, CudnnError, Descriptor, address, ints, strides_of
from dtrain.core.engines.cudnn.library import Library
from dtrain.core.engines.cudnn.memory import as_images
from dtrain.core.engines.engine import NotOffered
from tests.core.engines.cudnn.conftest import Bench
from tests.core.engines.reference.test_convolution import ROWS, Row

CUPY = SimpleNamespace(cuda=SimpleNamespace(runtime=SimpleNamespace(getDevice=lambda: 0)))
MOST_AXES = 8


class Found:
    """What a real descriptor says of itself: `number` ints and arrays of ints, by a getter of cuDNN's."""

    def __init__(self, binding: Binding, getter: str, descriptor: Descriptor, *kinds: Any) -> None:
        self.values = [kind() for kind in kinds]
        function = getattr(binding.library.functions, f"cudnn{getter}")
        before = [MOST_AXES] if "Nd" in getter and "Convolution" not in getter else []
        before = [2] if "ConvolutionNd" in getter else before
        status = function(descriptor, *before, *(ctypes.byref(value) for value in self.values))
        assert status == 0

    def numbers(self) -> list[Any]:
        return [list(value) if hasattr(value, "_length_") else value.value for value in self.values]


@pytest.fixture
def binding(library: Library) -> Binding:
    """Return the real cuDNN, of which no handle is asked: that would need a GPU."""
    return Binding(library, CUPY)


AXES = ctypes.c_int * MOST_AXES


def test_tensor_is_what_cudnn_understands(binding: Binding) -> None:
    for last, strides in [(False, [60, 20, 5, 1]), (True, [60, 1, 15, 3])]:
        tensor = binding.tensor((2, 3, 4, 5), "bfloat16", last)
        found = Found(
            binding, "GetTensorNdDescriptor", tensor, ctypes.c_int, ctypes.c_int, AXES, AXES
        ).numbers()
        assert found[:2] == [dnn.BF16, 4]
        assert found[2][:4] == [2, 3, 4, 5]
        assert found[3][:4] == strides


def test_filter_is_what_cudnn_understands(binding: Binding) -> None:
    weight = binding.filter((4, 3, 2, 5), "float16", True)
    kinds = ctypes.c_int, ctypes.c_int, ctypes.c_int, AXES
    found = Found(binding, "GetFilterNdDescriptor", weight, *kinds).numbers()
    assert found[:3] == [dnn.FLOAT16, dnn.CHANNELS_LAST, 4]
    assert found[3][:4] == [4, 3, 2, 5]


def test_descriptor_of_a_convolution_is_what_cudnn_understands(binding: Binding) -> None:
    arguments = 2, ints((1, 0)), ints((2, 3)), ints((1, 2)), dnn.CROSS_CORRELATION, dnn.FLOAT32
    what = Descriptor(binding, "Convolution", "SetConvolutionNdDescriptor", *arguments)
    binding.call("SetConvolutionGroupCount", what, 3)
    binding.call("SetConvolutionMathType", what, dnn.EXACT_MATH)
    two = ctypes.c_int * 2
    found = Found(
        binding, "GetConvolutionNdDescriptor", what, ctypes.c_int, two, two, two, ctypes.c_int, ctypes.c_int
    )
    assert found.numbers() == [2, [1, 0], [2, 3], [1, 2], dnn.CROSS_CORRELATION, dnn.FLOAT32]
    assert Found(binding, "GetConvolutionGroupCount", what, ctypes.c_int).numbers() == [3]
    assert Found(binding, "GetConvolutionMathType", what, ctypes.c_int).numbers() == [dnn.EXACT_MATH]


@pytest.mark.parametrize("row", [row for row in ROWS if row.fine[0]], ids=lambda row: row.name)
def test_output_of_a_convolution_is_as_long_as_caffes(binding: Binding, row: Row) -> None:
    num_axes = max(2, len(row.kernel))
    x, weight = (
        binding.tensor(as_images(row.fine), "float32"),
        binding.filter(as_images(row.weight), "float32"),
    )
    window = (
        (fill,) * (num_axes - len(row.kernel)) + one
        for fill, one in zip((1, 0, 1), row.geometry(), strict=True)
    )
    stride, pad, dilation = map(ints, window)
    arguments = num_axes, pad, stride, dilation, dnn.CROSS_CORRELATION, dnn.FLOAT32
    what = Descriptor(binding, "Convolution", "SetConvolutionNdDescriptor", *arguments)
    binding.call("SetConvolutionGroupCount", what, row.group)
    lengths = (ctypes.c_int * (num_axes + 2))()
    function = binding.library.functions.cudnnGetConvolutionNdForwardOutputDim
    assert function(what, x, weight, num_axes + 2, lengths) == 0
    assert tuple(lengths) == as_images(row.coarse)


def test_descriptors_of_activation_and_lrn_are_what_cudnn_understands(binding: Binding) -> None:
    relu = Descriptor(
        binding, "Activation", "SetActivationDescriptor", dnn.ACTIVATIONS["relu"], dnn.SHOW_NAN, 0.0
    )
    kinds = ctypes.c_int, ctypes.c_int, ctypes.c_double
    assert Found(binding, "GetActivationDescriptor", relu, *kinds).numbers() == [1, 1, 0.0]
    lrn = Descriptor(binding, "LRN", "SetLRNDescriptor", 5, 1e-4, 0.75, 2.0)
    kinds = ctypes.c_uint, ctypes.c_double, ctypes.c_double, ctypes.c_double
    assert Found(binding, "GetLRNDescriptor", lrn, *kinds).numbers() == [5, 1e-4, 0.75, 2.0]


def test_call_of_the_real_library_that_fails_names_the_function(binding: Binding) -> None:
    with pytest.raises(CudnnError, match=r"cudnnSetLRNDescriptor must succeed, got CUDNN_STATUS_BAD_PARAM"):
        Descriptor(binding, "LRN", "SetLRNDescriptor", 99, 1e-4, 0.75, 2.0)


def test_run_that_is_not_supported_is_not_offered(make_bench: Callable[..., Bench]) -> None:
    binding = make_bench(refused=("SoftmaxForward",)).engine.binding
    with pytest.raises(NotOffered, match="that cudnnSoftmaxForward supports"):
        binding.run("SoftmaxForward", 1, 1, None, None, None, None, None, None)


def test_run_that_fails_says_what_cudnn_says(make_bench: Callable[..., Bench]) -> None:
    binding = make_bench().engine.binding
    with pytest.raises(
        CudnnError, match=r"cudnnSoftmaxForward must succeed, got CUDNN_STATUS_EXECUTION_FAILED \(5000\): As"
    ):
        binding.run("SoftmaxForward", 0, 0, None, None, None, None, None, None)


def test_run_sets_the_current_stream_once(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    played, binding, cuda = bench.played, bench.engine.binding, bench.engine.xp.cuda
    for pointer in (0, 0, 7, 7, 0):
        cuda.get_current_stream = lambda pointer=pointer: SimpleNamespace(ptr=pointer)
        binding.try_to("SoftmaxForward", 0, 0, None, None, None, None, None, None)
        assert played.stream == pointer
    assert played.calls["SetStream"] == 3
    assert played.calls["Create"] == 1


def test_handles_are_of_one_thread_each_and_destroyed(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    played = bench.played
    arguments = "SoftmaxForward", 0, 0, None, None, None, None, None, None
    bench.engine.binding.try_to(*arguments)
    thread = threading.Thread(target=bench.engine.binding.try_to, args=arguments)
    thread.start()
    thread.join()
    assert played.calls["Create"] == 2
    del thread, bench
    gc.collect()
    assert played.handles == set()


def test_descriptors_are_destroyed_with_their_owners(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    before = len(bench.played.things)
    tensor = bench.engine.binding.tensor((1, 2, 3), "float32")
    assert len(bench.played.things) == before + 1
    del tensor
    assert len(bench.played.things) == before


def test_tensor_of_no_values_or_too_many_is_not_offered(make_bench: Callable[..., Bench]) -> None:
    binding = make_bench().engine.binding
    for shape in [(2, 0, 3, 3), (2**11, 2**10, 2**10)]:
        with pytest.raises(NotOffered, match=f"of {np.prod(shape, dtype=object)} values"):
            binding.tensor(shape, "float32")


def test_address_of_an_array_with_gaps_or_of_float64_is_refused(make_bench: Callable[..., Bench]) -> None:
    xp = make_bench().engine.xp
    array = xp.zeros((4, 6), np.float32)
    assert address(array) == array.data.ptr
    with pytest.raises(AssertionError, match="strides"):
        address(array[:, ::2])
    with pytest.raises(AssertionError, match="computes in float32, got float64"):
        address(array.astype(np.float64))


@pytest.mark.parametrize(
    ("shape", "last", "strides"),
    [
        ((2, 3, 4, 5), False, (60, 20, 5, 1)),
        ((2, 3, 4, 5), True, (60, 1, 15, 3)),
        ((2, 3, 4, 5, 6), True, (360, 1, 90, 18, 3)),
        ((7, 3), True, (3, 1)),
    ],
)
def test_strides_of_a_shape_are_products_of_what_lies_behind(
    shape: tuple[int, ...], last: bool, strides: tuple[int, ...]
) -> None:
    assert strides_of(shape, last) == strides
