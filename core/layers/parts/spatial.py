"""Windows that slide over spatial axes: kernel, stride, pad and dilation as prototxt spells them.

Convolution spells them with repeated fields, once or once per axis; pooling with single ones; both with pairs
of _h and _w for two axes. Follows caffe's base_conv_layer.cpp and pooling_layer.cpp.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dtrain.core.errors import UserError
from dtrain.proto import caffe_pb2

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Window:
    """What slides: each field has one number per spatial axis."""

    kernel: Shape
    stride: Shape
    pad: Shape
    dilation: Shape

    @property
    def extents(self) -> Shape:
        """How many inputs the dilated kernel spans along each axis: dilation·(kernel − 1) + 1."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True))

    def output_sizes(self, sizes: Sequence[int], message: str) -> Shape:
        """Return floor((size + 2·pad − extent) / stride) + 1 along each axis.

        Raises UserError in the name of `message` where the kernel does not fit into the padded input.
        """
        for axis, (size, pad, extent) in enumerate(zip(sizes, self.pad, self.extents, strict=True)):
            if size + 2 * pad < extent:
                raise no_room(message, axis, size, self)
        return tuple(
            (size + 2 * pad - extent) // stride + 1
            for size, pad, extent, stride in zip(sizes, self.pad, self.extents, self.stride, strict=True)
        )


def no_room(message: str, axis: int, size: int, window: Window) -> UserError:
    """Return the error of a window that is larger than the padded input of `size`."""
    return UserError(
        f"{message}: the kernel must fit into the padded input, or the output is empty; got kernel "
        f"{window.kernel[axis]}, dilation {window.dilation[axis]}, input {size} and pad {window.pad[axis]} "
        f"along spatial axis {axis}"
    )


@dataclass(frozen=True)
class _Field:
    """One property of a window: its field, its pair for two axes, the value when not given (None: must be).

    missing_half: what the other of the pair is when only one is given (None: both must be).
    """

    name: str
    pair: tuple[str, ...]
    default: int | None
    least: int
    missing_half: int | None = None


_KERNEL = _Field("kernel_size", ("kernel_h", "kernel_w"), default=None, least=1)
_STRIDE = _Field("stride", ("stride_h", "stride_w"), default=1, least=1)
_PAD = _Field("pad", ("pad_h", "pad_w"), default=0, least=0)
_CONVOLUTION_PAD = _Field("pad", ("pad_h", "pad_w"), default=0, least=0, missing_half=0)
_DILATION = _Field("dilation", (), default=1, least=1)

_Param = caffe_pb2.ConvolutionParameter | caffe_pb2.PoolingParameter


def convolution_window(param: caffe_pb2.ConvolutionParameter, num_axes: int) -> Window:
    """Return the window over `num_axes` spatial axes. Raises UserError for fields that can't be."""
    fields = (_KERNEL, _STRIDE, _CONVOLUTION_PAD, _DILATION)
    return Window(*[_read(field, param, "convolution_param", num_axes) for field in fields])


def pooling_window(param: caffe_pb2.PoolingParameter, sizes: tuple[int, int]) -> Window:
    """Return the window over two spatial axes of `sizes`, all of them with global_pooling.

    Raises UserError for fields that can't be.
    """
    stride, pad = (_read(field, param, "pooling_param", 2) for field in (_STRIDE, _PAD))
    if not param.global_pooling:
        kernel = _read(_KERNEL, param, "pooling_param", 2)
        if any(p >= k for p, k in zip(pad, kernel, strict=True)):
            raise UserError(
                f"pooling_param.pad must be below the kernel's size, got pad {pad} and kernel {kernel}"
            )
        return Window(kernel, stride, pad, (1, 1))
    for name in (_KERNEL.name, *_KERNEL.pair):
        if param.HasField(name):
            raise UserError(f"pooling_param.{name} must be left out with global_pooling: true")
    if stride != (1, 1) or pad != (0, 0):
        raise UserError(
            f"pooling_param must have stride 1 and pad 0 with global_pooling, got {stride} and {pad}"
        )
    return Window(sizes, stride, pad, (1, 1))


def _read(field: _Field, param: _Param, message: str, num_axes: int) -> Shape:
    """Return the property's numbers, one per axis, from whichever spelling is used."""
    given = _values(param, field.name)
    halves = [half for half in field.pair if param.HasField(half)]
    pair = " and ".join(field.pair)
    if halves:
        if given:
            raise UserError(f"{message}.{field.name} must not be given together with {pair}, got both")
        if num_axes != 2:
            raise UserError(f"{message}.{pair} are for 2 spatial axes, got {num_axes}; use {field.name}")
        if len(halves) == 1 and field.missing_half is None:
            raise UserError(f"{message}.{pair} must be given together, got {halves[0]} alone")
        values = tuple(
            getattr(param, half) if half in halves else field.missing_half or 0 for half in field.pair
        )
    elif given or field.default is not None:
        values = _spread(given or [field.default or 0], num_axes, f"{message}.{field.name}")
    else:
        raise UserError(f"{message}.{field.name} must be given, got none")
    if any(value < field.least for value in values):
        named = pair if halves else field.name
        raise UserError(f"{message}.{named} must be at least {field.least}, got {min(values)}")
    return values


def _values(param: _Param, name: str) -> list[int]:
    """Return the values of a field, single or repeated, as a list that is empty when it is not given."""
    value = getattr(param, name)
    if isinstance(value, int):
        return [value] if param.HasField(name) else []
    return list(value)


def _spread(values: Sequence[int], num_axes: int, what: str) -> Shape:
    if len(values) not in (1, num_axes):
        raise UserError(
            f"{what} must be given once or once per spatial axis ({num_axes}), got {len(values)} values"
        )
    return tuple(values) if len(values) == num_axes else tuple(values) * num_axes
