"""The place of a run: what a manifest keeps beside Caffe's files, taken from the nets and given back to them."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from dtrain.core.net.net import Net
from dtrain.core.snapshots import Manifest
from dtrain.core.solver.loss_window import LossWindow

log = logging.getLogger(__name__)


def epochs_done(net: Net) -> int:
    """Return how many times all records of the first reading layer have been read, over all ranks."""
    layers = net.reading_layers
    return layers[0].position // layers[0].num_records if layers else 0


def beginning_epoch(net: Net, num_passes: int) -> int | None:
    """Return which epoch of the first reading layer begins, over all ranks, in the next `num_passes` forward passes.

    Epochs count from 0. None where none begins; the last one of several.
    """
    for layer in net.reading_layers[:1]:
        end = layer.position + num_passes * layer.records_per_pass
        epoch = (end - 1) // layer.num_records
        return epoch if epoch * layer.num_records >= layer.position else None
    return None


def describe_place(net: Net, losses: LossWindow, iteration: int, current_step: int) -> Manifest:
    """Return the manifest of a run that trains `net` and has done `iteration` updates; its files are to come."""
    layers, context = net.reading_layers, net.context
    return Manifest(
        iteration=iteration,
        world_size=context.shard.world_size,
        batch_sizes={layer.name: layer.loader.batch_size for layer in layers},
        positions={layer.name: layer.position for layer in layers},
        epoch=epochs_done(net),
        seed=context.random.seed,
        current_step=current_step,
        losses=tuple(losses.losses),
        pass_index=context.random.pass_index,
    )


def go_to_iteration(iteration: int, num_passes: int, net: Net, losses: LossWindow) -> None:
    """Let `net` read and draw on as after `iteration` updates of num_passes forward passes each, the losses of
    which nobody has kept: where a snapshot of Caffe's own is taken up.
    """
    net.context.random.pass_index = iteration * num_passes
    losses.restart()
    for layer in net.reading_layers:
        layer.start(iteration * num_passes * layer.records_per_pass)


def go_to_place(manifest: Manifest, net: Net, test_nets: Sequence[Net], losses: LossWindow) -> None:
    """Let the nets draw, read and smooth on from where `manifest` was written; `net` is the one that trains."""
    for each in (net, *test_nets):
        each.context.random.seed = manifest.seed
        for layer in each.reading_layers:
            layer.reseed(manifest.seed)
    net.context.random.pass_index = manifest.pass_index
    losses.restart(manifest.losses)
    for layer in net.reading_layers:
        if layer.name in manifest.positions:
            layer.start(manifest.positions[layer.name])


def warn_of_forgotten(net: Net) -> None:
    """Say of each layer what it begins anew, though the run goes on."""
    for node, layer in zip(net.graph.nodes, net.layers, strict=True):
        if layer.forgets:
            log.warning("%s: %s is in no snapshot and begins anew", node.title, layer.forgets)
