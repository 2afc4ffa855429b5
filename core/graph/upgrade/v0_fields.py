"""Where each field of a layer of 2013 is in a layer of 2014: a table by field and type.

Used by the upgrade of V0 nets. Follows caffe's upgrade_proto.cpp (UpgradeV0LayerParameter, UpgradeV0LayerType).
"""

from __future__ import annotations

from dtrain.core.prototxt import Path

TYPES = {
    "accuracy": "ACCURACY",
    "bnll": "BNLL",
    "concat": "CONCAT",
    "conv": "CONVOLUTION",
    "data": "DATA",
    "dropout": "DROPOUT",
    "euclidean_loss": "EUCLIDEAN_LOSS",
    "flatten": "FLATTEN",
    "hdf5_data": "HDF5_DATA",
    "hdf5_output": "HDF5_OUTPUT",
    "im2col": "IM2COL",
    "images": "IMAGE_DATA",
    "infogain_loss": "INFOGAIN_LOSS",
    "innerproduct": "INNER_PRODUCT",
    "lrn": "LRN",
    "multinomial_logistic_loss": "MULTINOMIAL_LOGISTIC_LOSS",
    "pool": "POOLING",
    "relu": "RELU",
    "sigmoid": "SIGMOID",
    "softmax": "SOFTMAX",
    "softmax_loss": "SOFTMAX_LOSS",
    "split": "SPLIT",
    "tanh": "TANH",
    "window_data": "WINDOW_DATA",
}
"""V0's types and what V1 calls them."""

# What every type may have.
_OF_ALL = {
    "name": "name",
    "blobs": "blobs",
    "blobs_lr": "blobs_lr",
    "weight_decay": "weight_decay",
    "scale": "transform_param.scale",
    "meanfile": "transform_param.mean_file",
    "cropsize": "transform_param.crop_size",
    "mirror": "transform_param.mirror",
}

# Type: its message in V1, and V0's name → V1's name of each field in it.
_OF_TYPE: dict[str, tuple[str, dict[str, str]]] = {
    "conv": (
        "convolution_param",
        {
            "num_output": "num_output",
            "biasterm": "bias_term",
            "weight_filler": "weight_filler",
            "bias_filler": "bias_filler",
            "pad": "pad",
            "kernelsize": "kernel_size",
            "group": "group",
            "stride": "stride",
        },
    ),
    "innerproduct": (
        "inner_product_param",
        {
            "num_output": "num_output",
            "biasterm": "bias_term",
            "weight_filler": "weight_filler",
            "bias_filler": "bias_filler",
        },
    ),
    "pool": (
        "pooling_param",
        {"pool": "pool", "pad": "pad", "kernelsize": "kernel_size", "stride": "stride"},
    ),
    "dropout": ("dropout_param", {"dropout_ratio": "dropout_ratio"}),
    "lrn": ("lrn_param", {"local_size": "local_size", "alpha": "alpha", "beta": "beta", "k": "k"}),
    "concat": ("concat_param", {"concat_dim": "concat_dim"}),
    "infogain_loss": ("infogain_loss_param", {"source": "source"}),
    "data": ("data_param", {"source": "source", "batchsize": "batch_size", "rand_skip": "rand_skip"}),
    "hdf5_data": ("hdf5_data_param", {"source": "source", "batchsize": "batch_size"}),
    "images": (
        "image_data_param",
        {
            "source": "source",
            "batchsize": "batch_size",
            "rand_skip": "rand_skip",
            "shuffle_images": "shuffle",
            "new_height": "new_height",
            "new_width": "new_width",
        },
    ),
    "window_data": (
        "window_data_param",
        {
            "source": "source",
            "batchsize": "batch_size",
            "det_fg_threshold": "fg_threshold",
            "det_bg_threshold": "bg_threshold",
            "det_fg_fraction": "fg_fraction",
            "det_context_pad": "context_pad",
            "det_crop_mode": "crop_mode",
        },
    ),
}


def place_of(type_name: str, field: str) -> Path | None:
    """Return the path of V0's `field` in a V1 layer of this V0 type; None where the type has no such field."""
    if field in _OF_ALL:
        return tuple(_OF_ALL[field].split("."))
    if field == "hdf5_output_param" and type_name == "hdf5_output":
        return (field,)
    message, fields = _OF_TYPE.get(type_name, ("", {}))
    return (message, fields[field]) if field in fields else None
