from __future__ import annotations

from dtrain.core.graph.node import Node
from dtrain.proto import caffe_pb2


def test_node_title_has_place_and_name() -> None:
    node = Node(caffe_pb2.LayerParameter(name="ip1"), 3, "lenet.prototxt:41")
    assert node.name == "ip1"
    assert node.title == 'lenet.prototxt:41: layer "ip1"'
