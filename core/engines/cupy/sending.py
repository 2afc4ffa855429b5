"""Small numbers from the host to the GPU before each iteration, without a wait on either side.

What a captured graph is told anew lies in device memory; this writes it there, in front of the replay.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtrain.core.engines.cupy.kernels import Kernel

_NUM_WORDS = 16  # that a launch takes along, as in send.cu


class Sender:
    """Writes numbers into `target` on cupy's current stream; only when they are others than before.

    They travel as arguments of a launch, 64 bytes in each: what the host changes afterwards does not count, which a
    copy of its memory could not say without an event.

    Arguments:
        cupy: the module. target: an array on the device without gaps, of a dtype of 4 or 8 bytes. Nobody else may
            write it, or `forget` must be called.
    """

    def __init__(self, cupy: Any, target: Any) -> None:
        self._send = Kernel(cupy, "send_words", "send")
        self._words = target.reshape(-1).view(np.uint32)
        self._shape, self._dtype = target.shape, target.dtype
        self._sent = b""

    def send(self, values: NDArray[Any]) -> None:
        """Let the target have `values`, a host array of its shape and dtype, after what the stream has to do."""
        assert (values.shape, values.dtype) == (self._shape, self._dtype)
        sent = values.tobytes()
        if sent == self._sent:
            return
        words = np.frombuffer(sent, np.uint32)
        for start in range(0, words.size, _NUM_WORDS):
            part = words[start : start + _NUM_WORDS]
            rest = [np.uint32(0)] * (_NUM_WORDS - part.size)
            self._send.launch(
                (1,), (1,), self._words[start : start + part.size], np.int32(part.size), *part, *rest
            )
        self._sent = sent

    def forget(self) -> None:
        """Write at the next call of `send`, whatever it is given."""
        self._sent = b""
