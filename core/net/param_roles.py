"""The roles of params: which are biases and which belong to a normalisation.

Asked by the solver, which may leave weight decay out for them. A role follows from the layer's type and the
param's place in the layer.
"""

from __future__ import annotations

from dtrain.proto import caffe_pb2

NORMALISATIONS = frozenset({"BatchNorm", "Scale", "Bias", "PReLU", "Normalize", "LayerNorm"})

# Places of biases among a layer's params, where it has any; negative ones count from the last.
_BIASES = {
    "Convolution": (1,),
    "Deconvolution": (1,),
    "InnerProduct": (1,),
    "Embed": (1,),
    "LSTM": (1,),  # W_xc, b_c, …
    "RNN": (1, -1),  # W_xh, b_h, …, W_ho, b_o
    "Bias": (0,),
    "LayerNorm": (1,),
}


def is_bias(layer: caffe_pb2.LayerParameter, index: int, num_params: int) -> bool:
    """Return whether param `index` of the num_params of `layer` is a bias, which is added to the layer's values."""
    if layer.type == "Scale":  # with two bottoms the bias is its only param
        return layer.scale_param.bias_term and index == num_params - 1
    return any(place in (index, index - num_params) for place in _BIASES.get(layer.type, ()))


def is_normalisation(layer: caffe_pb2.LayerParameter) -> bool:
    """Return whether the params of `layer` scale and shift normalised values, or are their statistics."""
    return layer.type in NORMALISATIONS
