from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import pytest

from dtrain.core import pycaffe as caffe
from dtrain.core.errors import UserError
from dtrain.core.pycaffe.net_view import known
from tests.core.conftest import WriteModule
from tests.core.net_builder import inputs


@pytest.fixture
def view(tmp_path: Path) -> caffe.Net:
    """Return a net in which x is read twice, so that a split is inserted."""
    (tmp_path / "net.prototxt").write_text(
        inputs(x=(2, 3), z=(2, 4))
        + """
layer { name: "fc" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 4 } }
layer { name: "relu" type: "ReLU" bottom: "y" top: "y" }
layer { name: "loss" type: "EuclideanLoss" bottom: "y" bottom: "z" top: "loss" loss_weight: 3 }
layer { name: "also" type: "TanH" bottom: "x" top: "also" }
"""
    )
    return caffe.Net(tmp_path / "net.prototxt", caffe.TRAIN)


SPLIT = ["x_x_0_split_0", "x_x_0_split_1"]


def test_net_view_has_blobs_and_params_in_order_and_the_same_each_time(view: caffe.Net) -> None:
    assert list(view.blobs) == view._blob_names == ["x", *SPLIT, "z", "y", "loss", "also"]
    assert isinstance(view.blobs, OrderedDict)
    assert view.blobs is view.blobs
    assert view.blobs["y"] is view._blobs[4]
    assert [(name, [blob.shape for blob in vec]) for name, vec in view.params.items()] == [
        ("fc", [(4, 3), (4,)])
    ]
    assert view.params["fc"] is view.layer_dict["fc"].blobs


def test_net_view_has_loss_weights_by_blob(view: caffe.Net) -> None:
    assert view.blob_loss_weights == dict.fromkeys(view.blobs, 0) | {"loss": 3}


def test_net_view_has_layers_with_type_and_blobs(view: caffe.Net) -> None:
    assert view._layer_names == ["x", "x_x_0_split", "z", "fc", "relu", "loss", "also"]
    assert [layer.type for layer in view.layers] == [
        *("Input", "Split", "Input", "InnerProduct", "ReLU", "EuclideanLoss", "TanH")
    ]
    assert [len(layer.blobs) for layer in view.layers] == [0, 0, 0, 2, 0, 0, 0]
    assert list(view.layer_dict.items()) == list(zip(view._layer_names, view.layers, strict=True))


def test_net_view_has_names_of_tops_and_bottoms_by_layer(view: caffe.Net) -> None:
    assert view.top_names["x_x_0_split"] == SPLIT
    assert view.bottom_names["loss"] == ["y", "z"]
    assert view.bottom_names["x"] == []
    assert view.top_names["relu"] == view.bottom_names["relu"] == ["y"]
    assert list(view.top_names) == list(view.bottom_names) == view._layer_names
    for i, name in enumerate(view._layer_names):
        assert [view._blob_names[k] for k in view._top_ids(i)] == view.top_names[name]
        assert [view._blob_names[k] for k in view._bottom_ids(i)] == view.bottom_names[name]


def test_net_view_has_inputs_in_order_and_outputs_by_the_alphabet(view: caffe.Net) -> None:
    assert (view.inputs, view.outputs) == (["x", "z"], ["also", "loss"])
    assert (view._inputs, view._outputs) == ([0, 3], [6, 5])


def test_net_view_shows_the_users_own_object_of_a_python_layer(
    write_module: WriteModule, tmp_path: Path
) -> None:
    write_module(
        "users_module",
        """
import caffe
class Counted(caffe.Layer):
    def setup(self, bottom, top): self.roidb = None
    def reshape(self, bottom, top): top[0].reshape(1)
    def forward(self, bottom, top): top[0].data[...] = len(self.roidb)
    def set_roidb(self, roidb): self.roidb = roidb
""",
    )
    (tmp_path / "net.prototxt").write_text(
        'layer { name: "n" type: "Python" top: "n" python_param { module: "users_module" layer: "Counted" } }'
    )
    net = caffe.Net("net.prototxt", caffe.TRAIN)
    net.layers[0].set_roidb([1, 2, 3])
    assert net.forward()["n"].tolist() == [3]
    assert net.layers[0].type == "Python"


def test_known_name_is_returned_and_an_unknown_one_answered_with_the_nearest() -> None:
    assert known("fc", ["fc", "loss"], "layer") == "fc"
    with pytest.raises(
        UserError, match='^the net has no layer "los"; did you mean "loss"\\?; it has fc, loss$'
    ):
        known("los", ["fc", "loss"], "layer")
