"""WindowData: batches of windows cut out of images, foreground and background mixed, as R-CNN trains.

Extension (`dtrain_param`): decode_threads. Follows caffe's window_data_layer.cpp, except that the ranks read
windows of their own, that the window at a place of the stream is a function of (seed, place), and that where to
start is known, so that a resumed run reads on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dtrain.core.blob import Blob
from dtrain.core.errors import UserError
from dtrain.core.layers.layer import LAYERS, Arity
from dtrain.core.layers.parts.images import find_folder, make_workers, transform_spec
from dtrain.core.layers.parts.reading import ReadingLayer
from dtrain.core.layers.parts.synthetic import make_up_images
from dtrain.core.paths import resolve
from dtrain.data.transformer import TransformSpec
from dtrain.data.window_crop import CropRule
from dtrain.data.window_file import WindowFile
from dtrain.data.window_reader import WindowReader, WindowSpec

_CROP_MODES = ("warp", "square")


@LAYERS.register("WindowData")
class WindowData(ReadingLayer):
    """Top 0: (batch_size, 3, crop_size, crop_size), blue green red. Top 1: classes (batch_size), 0 background.

    window_data_param: source, a window file; root_folder, put before each image's path; batch_size; fg_threshold,
    bg_threshold and fg_fraction; context_pad; crop_mode; cache_images; scale. transform_param: crop_size, mirror,
    mean_file or mean_value, scale. In both phases windows are drawn at random. Paths are relative to the working
    directory, to the window file or to the net's file.
    """

    messages = ("window_data_param", "transform_param")
    extensions = ("decode_threads",)
    tops = Arity(2, 2)

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Read the window file and make the loader. Raises UserError or DataError if that can't be."""
        param = self.param.window_data_param
        if not param.source:
            raise UserError("window_data_param.source must name a window file, got none")
        if not param.batch_size:
            raise UserError("window_data_param.batch_size must be at least 1, got none")
        if param.crop_mode not in _CROP_MODES:
            raise UserError(
                f'window_data_param.crop_mode must be "warp" or "square", got "{param.crop_mode}"'
            )
        transform = self._spec()
        if not transform.crop_size:
            raise UserError("transform_param.crop_size must be at least 1, got none")
        path = resolve(param.source, self.context.net_path)
        makes_up = self.context.synthetic is not None
        reader = make_up_images(self, transform, path) if makes_up else self._open(path, transform)
        self.make_loader(reader, param.batch_size)

    def _open(self, path: str, transform: TransformSpec) -> WindowReader:
        param = self.param.window_data_param
        rule = CropRule(transform.crop_size, param.context_pad, param.crop_mode == "square")
        windows = WindowFile(path, param.fg_threshold, param.bg_threshold)
        folder = find_folder(param.root_folder, windows.image_paths[0], path, self.context.net_path)
        spec = WindowSpec(folder, param.fg_fraction, param.cache_images)
        workers, seed = make_workers(self.param), self.context.random.seed
        reader = WindowReader(windows, spec, rule, transform, workers, seed)
        reader.count_foreground(param.batch_size)
        return reader

    def _spec(self) -> TransformSpec:
        """Return the transformation; Caffe's layer reads its own scale to this day, the upgrade moves an old one."""
        spec, param = transform_spec(self), self.param.window_data_param
        if not param.HasField("scale"):
            return spec
        if self.param.transform_param.HasField("scale") and spec.scale != param.scale:
            raise UserError(
                f"scale must be given once, got {spec.scale} in transform_param and {param.scale} in "
                "window_data_param; take the latter out"
            )
        return replace(spec, scale=param.scale)
