"""The base class of layers that users write, `caffe.Layer` to their code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from dtrain.core.blob import Blob, BlobVec
from dtrain.proto import caffe_pb2


class Layer:
    """A layer written in Python: derive from it, define four methods, and name the class in a prototxt.

        layer { type: "Python" bottom: "x" top: "y"
                python_param { module: "my_layers" layer: "Twice" param_str: "{'factor': 2}" } }

        class Twice(caffe.Layer):
            def setup(self, bottom, top): ...       # once: look at self.param_str, add params
            def reshape(self, bottom, top): ...     # before each forward: top[0].reshape(*bottom[0].shape)
            def forward(self, bottom, top): ...     # top[0].data[...] = 2 * bottom[0].data
            def backward(self, top, propagate_down, bottom): ...  # bottom[0].diff[...] = 2 * top[0].diff

    bottom and top are lists of blobs, whose data and diff are writable numpy arrays; take them anew each time,
    as their memory may move. backward overwrites the diffs of the bottoms that propagate_down asks for and adds
    to the diffs of self.blobs. Each rank of a job has an instance of its own.

    A layer that keeps something of its own from batch to batch (its place in a list of files, say) may define two
    more: get_state(self), which returns it as bytes, and set_state(self, state), which takes it up. Snapshots hold
    the state of each rank, and a run that resumes on as many ranks gives it back after setup; Caffe has no such
    methods.

    blobs: the learned params; setup adds them by self.blobs.add_blob(*shape), zeros. phase: TRAIN (0) or TEST
    (1); its str() is the name, as py-faster-rcnn's layers expect it. param_str: the prototxt's, a string;
    param_str_ is the same under the name that py-faster-rcnn's Caffe has.

    Follows caffe's python_layer.hpp.
    """

    type = "Python"
    blobs: BlobVec
    phase: Phase
    param_str: str
    param_str_: str

    def __new__(cls, *arguments: object, **keywords: object) -> Self:
        """Return an instance with `blobs`, also where a subclass's __init__ forgets to call this class's."""
        layer = super().__new__(cls)
        layer.blobs = BlobVec()
        return layer

    def __init__(self, *arguments: object, **keywords: object) -> None:
        """Take what subclasses hand on: Caffe's layer message, mostly. It is not looked at."""

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Read param_str and add params; called once. To be written by the user."""
        raise NotImplementedError

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Give the tops their shapes; called after setup and before each forward. To be written by the user."""
        raise NotImplementedError


class Phase(int):
    """A phase, an int as in BVLC's Caffe, whose str() is its name as in py-faster-rcnn's."""

    def __str__(self) -> str:
        return caffe_pb2.Phase.Name(self)
