"""What layers that read images take from their params: the transformation, and threads to decode in."""

from __future__ import annotations

import os
from dataclasses import replace

from dtrain.core.layers.layer import Layer
from dtrain.core.paths import resolve
from dtrain.data.transformer import TransformSpec
from dtrain.data.workers import Workers
from dtrain.dist.cores import own_share
from dtrain.proto import caffe_pb2


def transform_spec(layer: Layer, may_be_compressed: bool = False) -> TransformSpec:
    """Return the layer's transform_param; the mean file is looked for as all files are.

    Old fields of the same names in the layer's own message are none of this: in nets of their time the upgrade has
    moved them (core/graph/upgrade/transforms.py), in others they have no effect, as in Caffe, which it says.
    Raises DataError when fields exclude one another.
    """
    spec = TransformSpec.from_param(layer.param.transform_param, may_be_compressed=may_be_compressed)
    if spec.mean_file:
        spec = replace(spec, mean_file=resolve(spec.mean_file, layer.context.net_path))
    return spec


def find_folder(root_folder: str, path: str, listed_in: str, net_path: str) -> str:
    """Return what to put before the paths of images so that they are found as `path`, the first of them, is.

    Arguments:
        root_folder: put before each path as it stands, without a slash.
        listed_in: the file that lists the paths. net_path: the net's file. The images are looked for from the
            working directory, from the folder of the one and then of the other file.
    """
    named = root_folder + path
    found = resolve(resolve(named, listed_in), net_path)
    return found[: len(found) - len(named)] + root_folder


def make_workers(param: caffe_pb2.LayerParameter) -> Workers:
    """Return dtrain_param.decode_threads workers; for 0 as many as this rank has cores."""
    return Workers(param.dtrain_param.decode_threads or own_share(os.environ).num_cores)
