"""What stock Caffe does not have: types of layers and fields that a net must do without to be read by it.

Beside the graph, for tools that write nets for others. The types are those that BVLC Caffe registers.
"""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.message import Message

from dtrain.core.prototxt import Document, Path
from dtrain.proto import caffe_pb2

_TYPES = """
    AbsVal Accuracy ArgMax BatchNorm BatchReindex Bias BNLL Clip Concat ContrastiveLoss Convolution Crop Data
    Deconvolution Dropout DummyData ELU Eltwise Embed EuclideanLoss Exp Filter Flatten HDF5Data HDF5Output HingeLoss
    Im2col ImageData InfogainLoss InnerProduct Input Log LRN LSTM LSTMUnit MemoryData MultinomialLogisticLoss MVN
    Parameter Pooling Power PReLU Python Reduction ReLU Reshape RNN Scale Sigmoid SigmoidCrossEntropyLoss Silence
    Slice Softmax SoftmaxWithLoss Split SPP Swish TanH Threshold Tile WindowData
"""
STOCK_TYPES = frozenset(_TYPES.split())

_EXTENSION = "dtrain_param"
_FIRST_FOREIGN_NUMBER = 10_000  # of fields that are not BVLC's: forks' and dtrain's own


def strip_extensions(message: Message) -> int:
    """Remove every dtrain_param in `message` and return how many there were."""
    count = 0
    for field, value in message.ListFields():
        if field.name == _EXTENSION:
            message.ClearField(_EXTENSION)
            count += 1
        elif field.message_type is not None:
            for inner in [value] if isinstance(value, Message) else value:
                count += strip_extensions(inner)
    return count


def find_foreign(document: Document[caffe_pb2.NetParameter]) -> list[str]:
    """Return a sentence with its place for each type and each field of a layer that stock Caffe refuses."""
    sentences = []
    for i, layer in enumerate(document.message.layer):
        title = f'layer "{layer.name}": stock Caffe has no'
        if layer.type not in STOCK_TYPES:
            sentences.append(f'{document.where("layer", i, "type")}: {title} type "{layer.type}"')
        for inside in _foreign_fields(layer):
            dotted = ".".join(str(step) for step in inside if isinstance(step, str))
            sentences.append(f"{document.where('layer', i, *inside)}: {title} field {dotted}")
    return sentences


def _foreign_fields(message: Message) -> Iterator[Path]:
    for field, value in message.ListFields():
        if field.number >= _FIRST_FOREIGN_NUMBER:
            yield (field.name,)
        elif field.message_type is not None and isinstance(value, Message):
            for inside in _foreign_fields(value):
                yield (field.name, *inside)
