"""What oneDNN's layouts are called: nhwc, nChw16c … as oneDNN's own documents write them.

For people who want to know where a net's values lie; nothing is computed from these names.
"""

from __future__ import annotations

import ctypes

from dtrain.core.engines.onednn.binding import BF16, Binding, Descriptor
from dtrain.core.engines.onednn.layouts import Layout

# What can be asked of a descriptor of memory (dnnl_types.h).
_STRIDES, _TYPE, _NUM_BLOCKS, _BLOCKS, _BLOCKED_AXES = 14, 258, 263, 264, 265

_LETTERS = {2: "nc", 3: "ncw", 4: "nchw", 5: "ncdhw"}
_OTHER_LETTERS = "abcdefghijkl"


def layout_name(layout: Layout) -> str:
    """Return the name of a layout: axes from the slowest to the fastest, blocked ones large, then the blocks.

    nChw16c: for each image, each group of 16 channels, each row and column, the 16 values of the group. Behind the
    name of values in bf16 stands that.
    """
    binding, descriptor, num_axes = layout.layouts.binding, layout.descriptor, len(layout.shape)
    num_blocks = _ask_int(binding, descriptor, _NUM_BLOCKS)
    blocked = _ask_ints(binding, descriptor, _BLOCKED_AXES, num_blocks)
    sizes = _ask_ints(binding, descriptor, _BLOCKS, num_blocks)
    strides = _ask_ints(binding, descriptor, _STRIDES, num_axes)
    letters = _LETTERS.get(num_axes, _OTHER_LETTERS)
    order = sorted(range(num_axes), key=lambda axis: -strides[axis])
    outer = "".join(letters[axis].upper() if axis in blocked else letters[axis] for axis in order)
    inner = "".join(f"{size}{letters[axis]}" for axis, size in zip(blocked, sizes, strict=True))
    return outer + inner + (" bf16" if _ask_int(binding, descriptor, _TYPE) == BF16 else "")


def _ask_int(binding: Binding, descriptor: Descriptor, what: int) -> int:
    answer = ctypes.c_int()
    binding.call("memory_desc_query", descriptor, what, ctypes.byref(answer))
    return answer.value


def _ask_ints(binding: Binding, descriptor: Descriptor, what: int, count: int) -> list[int]:
    answer = ctypes.POINTER(ctypes.c_int64)()
    binding.call("memory_desc_query", descriptor, what, ctypes.byref(answer))
    return answer[:count]
