"""A stack of their own for signals: oneDNN's matrix products keep values where the kernel would put a signal's frame.

A signal (Ctrl-C, SIGTERM, a timer) that arrived within oneDNN 3.2's dnnl_sgemm overwrote some of its values: results
were wrong, or the process aborted. On a stack of its own its frame does no harm. Python's handlers run on one where
there is one.
"""

from __future__ import annotations

import ctypes
import mmap

_NUM_BYTES = 1 << 17  # AVX-512's registers alone take 3 KB of a frame
_DISABLED = 2

_stacks: list[mmap.mmap] = []  # never given back: the kernel knows them


class _Stack(ctypes.Structure):
    _fields_ = (("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


def give_signals_a_stack() -> None:
    """Let signals that this thread gets run on a stack of their own, unless they do already."""
    sigaltstack = ctypes.CDLL(None, use_errno=True).sigaltstack
    now = _Stack()
    if sigaltstack(None, ctypes.byref(now)) != 0 or not now.flags & _DISABLED:
        return
    memory = mmap.mmap(-1, _NUM_BYTES)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    if sigaltstack(ctypes.byref(_Stack(start, 0, _NUM_BYTES)), None) == 0:
        _stacks.append(memory)
