"""Building a net from its recipe: what its layers are told of seed, ranks and data.

The one place where a net gets its surroundings, for the solver and for the commands that have none.
"""

from __future__ import annotations

from dtrain.core.engines.engine import Engine
from dtrain.core.graph.graph import layer_class_of
from dtrain.core.graph.net_recipe import NetRecipe
from dtrain.core.layers.layer import LayerContext
from dtrain.core.net.debug_info import set_debug_info
from dtrain.core.net.label_limits import limit_labels
from dtrain.core.net.net import Net
from dtrain.core.random_streams import RandomStreams
from dtrain.data.loader import Deal
from dtrain.data.sampler import Shard
from dtrain.dist.activity import Activity
from dtrain.dist.communicator import Communicator
from dtrain.proto import caffe_pb2


def build_net(
    recipe: NetRecipe,
    engine: Engine,
    shard: Shard,
    *,
    seed: int = 0,
    deal: Deal | None = None,
    activity: Activity | None = None,
    communicator: Communicator | None = None,
) -> Net:
    """Return the net of `recipe` on this rank.

    deal: what its data layers deal to the ranks; by default whole batches in TEST and records in TRAIN, where
    recurrent nets get whole batches too. Where tests deal batches, what is random goes by the batch and not by the
    rank that runs it, so that the score is the same on any number of ranks; a net that carries a state from batch to
    batch is tested on all batches by every rank. communicator: for nets that all ranks
    run in step, batch by batch. A net file with debug_info gets it.

    Raises UserError with the mistakes of all layers.
    """
    phase = recipe.graph.state.phase
    if deal is None:
        deal = "batches" if phase == caffe_pb2.TEST else "records"
    random = RandomStreams(seed, shard.rank if deal == "records" else 0)
    classes = [layer_class_of(node) for node in recipe.graph.nodes]
    if deal == "batches" and any(each.carries_state for each in classes):
        shard = Shard(0, 1)
    if any(each.needs_whole_batches for each in classes):
        deal = "batches"  # records dealt one by one would tear sequences apart
    context = LayerContext(
        phase, engine, random, shard, deal, recipe.document.path, communicator, recipe.synthetic
    )
    net = Net(recipe, context, activity)
    if recipe.synthetic is not None:
        limit_labels(net)
    set_debug_info(net, recipe.document.message.debug_info)
    return net
