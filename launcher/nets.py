"""Building a net for a command that has no solver: test, time and check.

Stands where the flow prototxt → graph → net → solver → communicator → snapshot becomes a net.
"""

from __future__ import annotations

from dtrain.core.engines import Engine
from dtrain.core.graph.net_recipe import NetRecipe
from dtrain.core.layers import LayerContext
from dtrain.core.net.net import Net
from dtrain.core.random_streams import RandomStreams
from dtrain.data.loader import Deal
from dtrain.data.sampler import Shard
from dtrain.proto import caffe_pb2


def build_net(recipe: NetRecipe, engine: Engine, shard: Shard, seed: int = 0) -> Net:
    """Build the net of `recipe`; in TEST whole batches are dealt to the ranks, in TRAIN records.

    Raises UserError or DataError with the mistakes of all layers.
    """
    phase = recipe.graph.state.phase
    deal: Deal = "batches" if phase == caffe_pb2.TEST else "records"
    random = RandomStreams(seed, shard.rank)
    return Net(recipe, LayerContext(phase, engine, random, shard, deal, recipe.document.path))
