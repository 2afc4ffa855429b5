"""A node: one layer of a graph as its file describes it, with its place in the file."""

from __future__ import annotations

from dataclasses import dataclass

from dtrain.proto import caffe_pb2


@dataclass(frozen=True)
class Node:
    """A layer that is in the graph.

    index: its place among the layers that are in (for a split: of its producer). where: "file:line".
    inserted: a split that no file mentions.
    """

    param: caffe_pb2.LayerParameter
    index: int
    where: str
    inserted: bool = False

    @property
    def name(self) -> str:
        """The layer's name."""
        return str(self.param.name)

    @property
    def title(self) -> str:
        """What messages begin with: lenet.prototxt:41: layer "ip1"."""
        return f'{self.where}: layer "{self.param.name}"'
