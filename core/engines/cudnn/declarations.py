"""What of cuDNN's C API the engine uses: the parameters of functions, numbers of enums, and one structure.

All as in the headers of cuDNN 9 (cudnn_graph.h, cudnn_ops.h, cudnn_cnn.h), with which a test compares them.
"""

from __future__ import annotations

import ctypes

# A function's parameters, a letter each: p an address or a descriptor, i an int or an enum, …
KINDS = {
    "p": ctypes.c_void_p,
    "i": ctypes.c_int,
    "u": ctypes.c_uint,
    "z": ctypes.c_size_t,
    "d": ctypes.c_double,
}
# … by the name without its `cudnn`. All return a status.
PARAMETERS = {
    "Create": "p",
    "Destroy": "p",
    "SetStream": "pp",
    "CreateTensorDescriptor": "p",
    "SetTensorNdDescriptor": "piipp",
    "DestroyTensorDescriptor": "p",
    "CreateFilterDescriptor": "p",
    "SetFilterNdDescriptor": "piiip",
    "DestroyFilterDescriptor": "p",
    "CreateConvolutionDescriptor": "p",
    "SetConvolutionNdDescriptor": "pipppii",
    "SetConvolutionGroupCount": "pi",
    "SetConvolutionMathType": "pi",
    "DestroyConvolutionDescriptor": "p",
    "CreateActivationDescriptor": "p",
    "SetActivationDescriptor": "piid",
    "DestroyActivationDescriptor": "p",
    "CreateLRNDescriptor": "p",
    "SetLRNDescriptor": "puddd",
    "DestroyLRNDescriptor": "p",
    "GetConvolutionForwardAlgorithm_v7": "pppppipp",
    "GetConvolutionBackwardDataAlgorithm_v7": "pppppipp",
    "GetConvolutionBackwardFilterAlgorithm_v7": "pppppipp",
    "GetConvolutionForwardWorkspaceSize": "pppppip",
    "GetConvolutionBackwardDataWorkspaceSize": "pppppip",
    "GetConvolutionBackwardFilterWorkspaceSize": "pppppip",
    "FindConvolutionForwardAlgorithmEx": "ppppppppipppz",
    "FindConvolutionBackwardDataAlgorithmEx": "ppppppppipppz",
    "FindConvolutionBackwardFilterAlgorithmEx": "ppppppppipppz",
    "ConvolutionForward": "pppppppipzppp",
    "ConvolutionBackwardData": "pppppppipzppp",
    "ConvolutionBackwardFilter": "pppppppipzppp",
    "ConvolutionBackwardBias": "ppppppp",
    "ActivationForward": "pppppppp",
    "ActivationBackward": "pppppppppppp",
    "LRNCrossChannelForward": "ppipppppp",
    "LRNCrossChannelBackward": "ppipppppppppp",
    "SoftmaxForward": "piipppppp",
    "SoftmaxBackward": "piipppppppp",
    "BatchNormalizationForwardTraining": "pipppppppppdppdpp",
    "BatchNormalizationForwardInference": "pipppppppppppd",
    "BatchNormalizationBackward": "pippppppppppppppdpp",
}

# Types of values.
FLOAT32, FLOAT16, BF16 = 0, 2, 9
NUMBERS = {"float32": FLOAT32, "float16": FLOAT16, "bfloat16": BF16}

# Where statuses begin that say: a parameter is wrong; there is no code for what is asked; cuDNN has failed.
BAD_PARAM, NOT_SUPPORTED, INTERNAL_ERROR = 2000, 3000, 4000

ROW_MAJOR, CHANNELS_LAST = 0, 1  # formats of filters
CROSS_CORRELATION = 1
DEFAULT_MATH, TENSOR_MATH, EXACT_MATH = 0, 1, 3  # the first may round float32 to TF32
DETERMINISTIC = 1
NUM_ALGORITHMS = {"Forward": 8, "BackwardData": 6, "BackwardFilter": 7}
ACTIVATIONS = {"sigmoid": 0, "relu": 1, "tanh": 2}
SHOW_NAN = 1
ACROSS_CHANNELS = 0
ACCURATE, PER_PLACE = 1, 1  # softmax: with the maximum taken off; over channels, at each place
SPATIAL = 1  # batch normalisation: statistics over items and places

# Where each number stands in the headers: the enum's own name of it.
ENUM_NAMES = {
    "DATA_FLOAT": FLOAT32,
    "DATA_HALF": FLOAT16,
    "DATA_BFLOAT16": BF16,
    "STATUS_BAD_PARAM": BAD_PARAM,
    "STATUS_NOT_SUPPORTED": NOT_SUPPORTED,
    "STATUS_INTERNAL_ERROR": INTERNAL_ERROR,
    "TENSOR_NCHW": ROW_MAJOR,
    "TENSOR_NHWC": CHANNELS_LAST,
    "CROSS_CORRELATION": CROSS_CORRELATION,
    "DEFAULT_MATH": DEFAULT_MATH,
    "TENSOR_OP_MATH": TENSOR_MATH,
    "FMA_MATH": EXACT_MATH,
    "DETERMINISTIC": DETERMINISTIC,
    "CONVOLUTION_FWD_ALGO_COUNT": NUM_ALGORITHMS["Forward"],
    "CONVOLUTION_BWD_DATA_ALGO_COUNT": NUM_ALGORITHMS["BackwardData"],
    "CONVOLUTION_BWD_FILTER_ALGO_COUNT": NUM_ALGORITHMS["BackwardFilter"],
    "ACTIVATION_SIGMOID": ACTIVATIONS["sigmoid"],
    "ACTIVATION_RELU": ACTIVATIONS["relu"],
    "ACTIVATION_TANH": ACTIVATIONS["tanh"],
    "PROPAGATE_NAN": SHOW_NAN,
    "LRN_CROSS_CHANNEL_DIM1": ACROSS_CHANNELS,
    "SOFTMAX_ACCURATE": ACCURATE,
    "SOFTMAX_MODE_CHANNEL": PER_PLACE,
    "BATCHNORM_SPATIAL": SPATIAL,
}


class Performance(ctypes.Structure):
    """How an algorithm of a convolution did: its time in ms (−1: not measured), its workspace in bytes."""

    _fields_ = (
        ("algorithm", ctypes.c_int),
        ("status", ctypes.c_int),
        ("time_ms", ctypes.c_float),
        ("num_bytes", ctypes.c_size_t),
        ("determinism", ctypes.c_int),
        ("math_type", ctypes.c_int),
        ("reserved", ctypes.c_int * 3),
    )


def declare(functions: object) -> dict[str, object]:
    """Return the functions by name, each with the types of its parameters and result set."""
    declared = {}
    for name, letters in PARAMETERS.items():
        function = getattr(functions, f"cudnn{name}")
        function.argtypes = [KINDS[letter] for letter in letters]
        function.restype = ctypes.c_int
        declared[name] = function
    return declared
