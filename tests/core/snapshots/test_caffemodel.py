"""Caffemodels in and out, against the protobuf library."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dtrain.core.errors import UserError
from dtrain.core.snapshots import LayerRecord, LayerWeights, read_caffemodel, write_caffemodel
from dtrain.proto import caffe_pb2


def net_with_blobs(net_name: str, layers: list[LayerRecord]) -> caffe_pb2.NetParameter:
    """The reference: the same net, put together by protobuf."""
    net = caffe_pb2.NetParameter(name=net_name)
    for record in layers:
        layer = net.layer.add()
        layer.CopyFrom(record.parameter)
        for blob in record.blobs:
            field = "data" if blob.dtype == np.float32 else "double_data"
            layer.blobs.add(shape=caffe_pb2.BlobShape(dim=blob.shape), **{field: blob.ravel().tolist()})
    return net


def assert_same(weights: list[LayerWeights], layers: list[LayerRecord]) -> None:
    assert [(w.name, w.type) for w in weights] == [(r.parameter.name, r.parameter.type) for r in layers]
    for layer, record in zip(weights, layers, strict=True):
        for blob, expected in zip(layer.blobs, record.blobs, strict=True):
            assert blob.dtype == expected.dtype
            assert np.array_equal(blob, expected)


def test_write_caffemodel_is_parsed_by_protobuf_to_the_same_net(
    tmp_path: Path, layers: list[LayerRecord]
) -> None:
    write_caffemodel(tmp_path / "x.caffemodel", "nét", layers)
    parsed = caffe_pb2.NetParameter.FromString((tmp_path / "x.caffemodel").read_bytes())
    assert parsed == net_with_blobs("nét", layers)


def test_write_caffemodel_with_diffs_keeps_them(tmp_path: Path, layers: list[LayerRecord]) -> None:
    conv = layers[0]
    write_caffemodel(tmp_path / "x.caffemodel", "n", [conv._replace(diffs=[-blob for blob in conv.blobs])])
    parsed = caffe_pb2.NetParameter.FromString((tmp_path / "x.caffemodel").read_bytes())
    assert list(parsed.layer[0].blobs[0].diff) == [-value for value in range(8)]
    assert list(parsed.layer[0].blobs[1].diff) == [1.5, -2.5]
    assert_same(read_caffemodel(tmp_path / "x.caffemodel"), [conv])


@pytest.mark.parametrize("net_name", ["", "n", "ne", "net", "nets"])
def test_read_caffemodel_of_protobuf_at_any_alignment_gives_its_values(
    tmp_path: Path, layers: list[LayerRecord], net_name: str
) -> None:
    (tmp_path / "x.caffemodel").write_bytes(net_with_blobs(net_name, layers).SerializeToString())
    assert_same(read_caffemodel(tmp_path / "x.caffemodel"), layers)


def test_read_caffemodel_packed_blobs_are_views_of_the_file(
    tmp_path: Path, layers: list[LayerRecord]
) -> None:
    write_caffemodel(tmp_path / "x.caffemodel", "n", layers)
    for layer in read_caffemodel(tmp_path / "x.caffemodel"):
        for blob in layer.blobs:
            assert not blob.flags.owndata
            assert not blob.flags.writeable


def test_read_caffemodel_v1_layers_are_read(tmp_path: Path) -> None:
    net = caffe_pb2.NetParameter(name="old")
    convolution = caffe_pb2.V1LayerParameter.CONVOLUTION
    net.layers.add(name="conv1", type=convolution).blobs.add(
        num=2, channels=1, height=1, width=2, data=range(4)
    )
    net.layers.add(name="loss", type=caffe_pb2.V1LayerParameter.SOFTMAX_LOSS)
    (tmp_path / "x.caffemodel").write_bytes(net.SerializeToString())
    conv, loss = read_caffemodel(tmp_path / "x.caffemodel")
    assert (conv.name, conv.type, conv.legacy_dims) == ("conv1", "CONVOLUTION", True)
    assert conv.blobs[0].tolist() == [[[[0, 1]]], [[[2, 3]]]]
    assert (loss.name, loss.type, loss.blobs) == ("loss", "SOFTMAX_LOSS", ())


def test_read_caffemodel_v0_layers_are_read(tmp_path: Path) -> None:
    net = caffe_pb2.NetParameter(name="oldest")
    inner = net.layers.add(bottom=["data"]).layer
    inner.name, inner.type = "conv1", "conv"
    inner.blobs.add(num=1, channels=1, height=1, width=1, data=[5])
    (tmp_path / "x.caffemodel").write_bytes(net.SerializeToString())
    (layer,) = read_caffemodel(tmp_path / "x.caffemodel")
    assert (layer.name, layer.type, layer.blobs[0].tolist()) == ("conv1", "conv", [[[[5]]]])


@pytest.mark.parametrize(
    ("own", "legacy", "wanted", "fits"),
    [
        ((2, 3), False, (2, 3), True),
        ((2, 3), False, (3, 2), False),
        ((1, 1, 2, 3), False, (2, 3), False),
        ((1, 1, 2, 3), True, (2, 3), True),
        ((1, 1, 2, 3), True, (1, 2, 3), True),
        ((1, 1, 2, 3), True, (1, 1, 2, 3), True),
        ((1, 4, 2, 3), True, (2, 3), False),
        ((1, 1, 1, 3), True, (3,), True),
        ((1, 1, 2, 3), True, (1, 1, 1, 2, 3), False),
    ],
)
def test_has_shape_follows_caffes_rule(
    own: tuple[int, ...], legacy: bool, wanted: tuple[int, ...], fits: bool
) -> None:
    assert LayerWeights("l", "t", (np.zeros(own),), legacy).has_shape(0, wanted) is fits


def test_write_caffemodel_over_two_gigabytes_writes_nothing(tmp_path: Path) -> None:
    half = np.broadcast_to(np.float32(0), (2**28,))
    record = LayerRecord(caffe_pb2.LayerParameter(name="big"), [half, half])
    with pytest.raises(UserError, match="x.caffemodel: a binary snapshot must be at most 2147483647 bytes"):
        write_caffemodel(tmp_path / "x.caffemodel", "n", [record])
    assert list(tmp_path.iterdir()) == []


def test_write_caffemodel_message_with_blobs_leaves_them_out(tmp_path: Path) -> None:
    parameter = caffe_pb2.LayerParameter(name="a", blobs=[caffe_pb2.BlobProto(data=[1])])
    write_caffemodel(tmp_path / "x.caffemodel", "n", [LayerRecord(parameter, [np.array([2], np.float32)])])
    (layer,) = read_caffemodel(tmp_path / "x.caffemodel")
    assert [blob.tolist() for blob in layer.blobs] == [[2]]
    assert len(parameter.blobs) == 1


def test_write_caffemodel_missing_diff_raises(tmp_path: Path, layers: list[LayerRecord]) -> None:
    with pytest.raises(ValueError, match='layer "conv": 1 diffs for 2 blobs'):
        write_caffemodel(tmp_path / "x.caffemodel", "n", [layers[0]._replace(diffs=[layers[0].blobs[0]])])


def test_read_caffemodel_without_layers_raises(tmp_path: Path) -> None:
    (tmp_path / "x.caffemodel").write_bytes(caffe_pb2.NetParameter(name="n").SerializeToString())
    with pytest.raises(
        UserError, match="file must be a whole .caffemodel, got no layer before the end at byte 3;"
    ):
        read_caffemodel(tmp_path / "x.caffemodel")


def test_read_caffemodel_wrong_blob_names_the_layer(tmp_path: Path) -> None:
    net = caffe_pb2.NetParameter()
    net.layer.add(name="ip1").blobs.add(shape=caffe_pb2.BlobShape(dim=[2, 2]), data=[1])
    (tmp_path / "x.caffemodel").write_bytes(net.SerializeToString())
    with pytest.raises(UserError, match=r'got layer "ip1": a blob of shape \(2, 2\) has 1 values at byte'):
        read_caffemodel(tmp_path / "x.caffemodel")


def test_read_caffemodel_truncated_or_flipped_raises_nothing_but_user_error(
    tmp_path: Path, layers: list[LayerRecord], damaged: Callable[[bytes], list[bytes]]
) -> None:
    path = tmp_path / "x.caffemodel"
    write_caffemodel(path, "n", layers)
    good = path.read_bytes()
    refusals: list[str] = []
    for content in damaged(good):
        path.write_bytes(content)
        try:
            read_caffemodel(path)
        except UserError as error:
            refusals.append(str(error))
    assert all(refusal.startswith(f"{path}: file must be") for refusal in refusals)
    # Cuts between layers and flips within values leave a message that is whole; all other cuts are refused.
    assert len(refusals) >= len(good) - len(layers)
