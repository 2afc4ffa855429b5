"""How many bytes the values of a net's blobs take where some are bf16, and some are there in two forms at once.

net ──> here ──> planned pool (memory_plan.py)

The rules are those of docs/solver.md: what a convolution gives, and its gradient, stays bf16 through layers that take
values as they come; an inner product reads bf16 and gives float32; all else reads and writes float32. Who reads
another form than what is there makes a copy that lives as long.
"""

from __future__ import annotations

from dtrain.core.net.net import Net
from dtrain.core.tensor import Storage

CONVOLUTIONS = frozenset({"Convolution", "Deconvolution", "ConvolutionDepthwise", "DepthwiseConvolution"})
# Layers that work in the form in which values come, and that only show or add up.
_FOLLOWERS = frozenset({"BatchNorm", "Scale", "ReLU", "Pooling", "LRN", "Eltwise", "Concat", "Split"})
_FLOAT32_BYTES, _BF16_BYTES = 4, 2


def storage_bytes(net: Net) -> dict[int, int]:
    """Return the bytes of each storage of a blob's data or diff, by its id, with all copies of its values."""
    forms = _Forms(net) if net.context.engine.precision == "BF16" else None
    found: dict[int, int] = {}
    for name, blob in net.blobs.items():
        for storage, is_diff in ((blob.data_tensor.storage, False), (blob.diff_tensor.storage, True)):
            num_bytes = _float32_bytes(storage) if forms is None else forms.num_bytes(name, storage, is_diff)
            found[id(storage)] = max(found.get(id(storage), 0), num_bytes)
    return found


class _Forms:
    """In which forms blobs are there in a net that computes in bf16."""

    def __init__(self, net: Net) -> None:
        self.rounded: set[str] = set()  # blobs whose data a layer writes in bf16
        self._readers: dict[str, set[str]] = {name: set() for name in net.blobs}  # blob → types
        self._writers: dict[str, str] = {}
        for layer, bottoms, tops in zip(net.layers, net.bottom_names, net.top_names, strict=True):
            follows = layer.type in _FOLLOWERS and self.rounded.issuperset(bottoms)
            if layer.type in CONVOLUTIONS or follows:
                self.rounded.update(tops)
            elif not set(tops) & set(bottoms):
                self.rounded.difference_update(tops)
            for name in bottoms:
                self._readers[name].add("follower" if follows else layer.type)
            self._writers.update((name, layer.type) for name in tops if name not in bottoms)

    def num_bytes(self, name: str, storage: Storage, is_diff: bool) -> int:
        """Return the bytes of the data or diff of the blob `name`, which lie in `storage`."""
        is_rounded, readers = name in self.rounded, self._readers[name]
        takes_bf16 = CONVOLUTIONS | {"follower"}
        has_bf16 = is_rounded or not readers.isdisjoint({*CONVOLUTIONS, "InnerProduct"})
        has_float32 = not is_rounded or not readers <= takes_bf16
        if is_diff:  # written by the reader, read by the writer
            has_float32 = not readers <= takes_bf16
            has_bf16 = not has_float32 or is_rounded or self._writers.get(name) == "InnerProduct"
        num_values = _float32_bytes(storage) // _FLOAT32_BYTES
        return num_values * (_FLOAT32_BYTES * has_float32 + _BF16_BYTES * has_bf16)


def rounded_blobs(net: Net) -> frozenset[str]:
    """Return the blobs whose data are bf16 where a layer has written them."""
    return frozenset(_Forms(net).rounded) if net.context.engine.precision == "BF16" else frozenset()


def _float32_bytes(storage: Storage) -> int:
    return storage.capacity * storage.dtype.itemsize
