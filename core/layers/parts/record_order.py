"""The order in which a layer reads its records, from its dtrain_param: Data's and ImageData's."""

from __future__ import annotations

from dtrain.core.errors import UserError
from dtrain.core.layers.layer import Layer
from dtrain.data.epoch_order import Blocks
from dtrain.data.sampler import Sampler
from dtrain.proto import caffe_pb2


def make_sampler(layer: Layer, num_records: int, shuffle_always: bool = False) -> Sampler:
    """Return the order of records that the layer's dtrain_param asks for, whose shuffle is for TRAIN alone.

    shuffle_always: whether another field asks to shuffle, in both phases.
    Raises UserError for fields of dtrain_param that nothing would look at.
    """
    extra = layer.param.dtrain_param
    if extra.shuffle_block and not (extra.shuffle or shuffle_always):
        raise UserError("dtrain_param.shuffle_block is looked at with shuffle: true alone; take it out")
    if extra.HasField("shuffle_blocks_mixed") and not extra.shuffle_block:
        raise UserError(
            "dtrain_param.shuffle_blocks_mixed is looked at with a shuffle_block alone; take it out"
        )
    if not extra.shuffle_blocks_mixed:
        raise UserError("dtrain_param.shuffle_blocks_mixed must be at least 1, got 0")
    blocks = None
    if extra.shuffle_block:
        blocks = Blocks.of_size(extra.shuffle_block, num_records, extra.shuffle_blocks_mixed)
    shuffle = shuffle_always or (extra.shuffle and layer.phase == caffe_pb2.TRAIN)
    return Sampler(num_records, layer.context.random.seed, shuffle, blocks)
