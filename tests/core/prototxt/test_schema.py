from __future__ import annotations

from dtrain.core.prototxt.schema import ValueKind, schema_of
from dtrain.proto import caffe_pb2


def test_schema_of_convolution_tells_kinds_and_which_fields_repeat() -> None:
    fields = schema_of(caffe_pb2.ConvolutionParameter.DESCRIPTOR).fields
    assert [fields[name].kind for name in ("num_output", "bias_term", "engine", "weight_filler")] == [
        ValueKind.INTEGER,
        ValueKind.BOOL,
        ValueKind.ENUM,
        ValueKind.MESSAGE,
    ]
    assert (fields["kernel_size"].is_repeated, fields["kernel_h"].is_repeated) == (True, False)
    assert fields["num_output"].limits == (0, 4294967295)
    assert fields["engine"].enum_numbers == {"DEFAULT": 0, "CAFFE": 1, "CUDNN": 2}


def test_schema_of_clip_has_its_required_fields() -> None:
    assert schema_of(caffe_pb2.ClipParameter.DESCRIPTOR).required == ("min", "max")


def test_schema_of_datum_tells_bytes_from_text() -> None:
    assert schema_of(caffe_pb2.Datum.DESCRIPTOR).fields["data"].kind is ValueKind.BYTES
    assert schema_of(caffe_pb2.DataParameter.DESCRIPTOR).fields["source"].kind is ValueKind.STRING


def test_schema_of_a_shape_takes_the_rule_of_its_container() -> None:
    shape = caffe_pb2.BlobShape.DESCRIPTOR
    plain = schema_of(shape).fields["dim"].rule
    in_reshape = schema_of(shape, "ReshapeParameter.shape").fields["dim"].rule
    assert plain is not None
    assert in_reshape is not None
    assert not plain.holds(-1)
    assert in_reshape.holds(-1)
