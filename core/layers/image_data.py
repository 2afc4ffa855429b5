"""ImageData: batches of images from files that a list names, with Caffe's transformations.

Extensions (`dtrain_param`): decode_threads; `shuffle` is that of image_data_param, in TRAIN alone; shuffle_block.
Follows caffe's image_data_layer.cpp, except that the ranks share the list, that the order of each epoch is a function
of (seed, epoch), and that where to start is known, so that a resumed run reads on.
"""

from __future__ import annotations

from collections.abc import Sequence

from dtrain.core.blob import Blob
from dtrain.core.errors import UserError
from dtrain.core.layers.layer import LAYERS, Arity
from dtrain.core.layers.parts.images import find_folder, make_workers, transform_spec
from dtrain.core.layers.parts.reading import ReadingLayer
from dtrain.core.layers.parts.record_order import make_sampler
from dtrain.core.layers.parts.synthetic import make_up_images
from dtrain.core.paths import resolve
from dtrain.data.batch_reader import BatchReader
from dtrain.data.image_list import ImageList
from dtrain.data.image_reader import ImageReader, ImageSpec
from dtrain.data.picture import Colors
from dtrain.data.transformer import Transformer, TransformSpec
from dtrain.proto import caffe_pb2


@LAYERS.register("ImageData")
class ImageData(ReadingLayer):
    """Top 0: (batch_size, C, H, W), C = 3 (blue, green, red) or 1, transformed. Top 1: labels (batch_size).

    image_data_param: source, a list with "path label" on each line; root_folder, put before each path; batch_size;
    new_height and new_width, to which images are resized; is_color; shuffle; rand_skip, to begin at a random line
    below it. Paths are relative to the working directory, to the list or to the net's file. With batch_size 1 or
    crop_size images may differ in size.
    """

    messages = ("image_data_param", "transform_param")
    extensions = ("shuffle", "shuffle_block", "shuffle_blocks_mixed", "decode_threads")
    tops = Arity(2, 2)

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Read the list and make the loader. Raises UserError or DataError if that can't be."""
        param = self.param.image_data_param
        if not param.source:
            raise UserError("image_data_param.source must name a list of images, got none")
        if bool(param.new_height) != bool(param.new_width):
            raise UserError(
                "image_data_param.new_height and new_width must be given both or none, "
                f"got {param.new_height} and {param.new_width}"
            )
        path, spec = resolve(param.source, self.context.net_path), transform_spec(self)
        reader = self._open(path, spec) if self.context.synthetic is None else self._make_up(path, spec)
        self.make_loader(reader, param.batch_size)

    def _open(self, path: str, transform: TransformSpec) -> ImageReader:
        param = self.param.image_data_param
        images = ImageList(path)
        spec = ImageSpec(
            find_folder(param.root_folder, images.paths[0], images.path, self.context.net_path),
            Colors.COLOR if param.is_color else Colors.GRAY,
            (param.new_height, param.new_width) if param.new_height else None,
            param.rand_skip,
        )
        is_train, seed = self.phase == caffe_pb2.TRAIN, self.context.random.seed
        return ImageReader(
            images,
            spec,
            make_sampler(self, len(images), param.shuffle),
            Transformer(transform, train=is_train, seed=seed),
            make_workers(self.param),
        )

    def _make_up(self, path: str, spec: TransformSpec) -> BatchReader:
        param = self.param.image_data_param
        height, width = param.new_height or spec.crop_size, param.new_width or spec.crop_size
        size = (3 if param.is_color else 1, height, width) if height else None
        return make_up_images(self, spec, path, self._open, size=size, shuffle_always=param.shuffle)
