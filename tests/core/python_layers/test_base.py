from __future__ import annotations

import pytest

from dtrain.core.python_layers.base import Layer, Phase
from dtrain.proto import caffe_pb2


@pytest.mark.parametrize(("value", "name"), [(caffe_pb2.TRAIN, "TRAIN"), (caffe_pb2.TEST, "TEST")])
def test_phase_is_an_int_and_prints_as_its_name(value: int, name: str) -> None:
    phase = Phase(value)
    assert phase == value
    assert {name: "settings"}[str(phase)] == "settings"  # as py-faster-rcnn's layers look theirs up
    assert f"{phase}" == name
    assert [10, 11][phase] == 10 + value


class Forgetful(Layer):
    def __init__(self, param: object) -> None:
        self.seen = param


class Passing(Layer):
    def __init__(self, p_object: object, *args: object, **kwargs: object) -> None:
        super().__init__(p_object, *args, **kwargs)
        self.seen = p_object


@pytest.mark.parametrize("layer_class", [Forgetful, Passing])
def test_layer_has_blobs_of_its_own_whatever_its_init_does(layer_class: type[Forgetful]) -> None:
    one, other = layer_class("message"), layer_class("message")
    one.blobs.add_blob(2, 3)
    assert one.seen == "message"
    assert [blob.shape for blob in one.blobs] == [(2, 3)]
    assert len(other.blobs) == 0
    assert one.type == "Python"


@pytest.mark.parametrize("method", ["setup", "reshape"])
def test_layer_method_that_is_not_written_is_no_quiet_default(method: str) -> None:
    with pytest.raises(NotImplementedError):
        getattr(Layer(), method)([], [])
