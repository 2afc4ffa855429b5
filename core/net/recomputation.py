"""Running layers forward again before backward, so that the memory of their data can be others' meanwhile.

    net ──> segments (segments.py) ──> lifetimes ──> memory sharing ──> run_again before a segment's backward

Results are the same bits: what is random in a layer is a function of the pass (random_streams.py), running statistics
are put back, and layers that read, carry a state, write files or are a user's own run once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from dtrain.core.layers.batch_norm import BatchNorm
from dtrain.core.layers.python import Python
from dtrain.core.net.lifetimes import Again, LayerUse, Lifetimes, Value, most_alive_bytes
from dtrain.core.net.net import Net
from dtrain.core.net.segments import Node, Segment, choose_segments


def find_again(
    net: Net, uses: Sequence[LayerUse], kept: Collection[str], lifetimes_of: Callable[[Again], Lifetimes]
) -> Again:
    """Return which layers run forward again before the backward of which, so that training takes least memory.

    uses: what the layers do with their blobs. kept: blobs whose data stay. lifetimes_of: what dies when if some run
    again. Layers that run as one do so again.
    """
    numbers: dict[int, int] = {}  # of storages, by id
    memories: dict[Value, tuple[int, int]] = {}
    for name, blob in net.blobs.items():
        for value, tensor in ((Value(name), blob.data_tensor), (Value(name, True), blob.diff_tensor)):
            storage = tensor.storage
            number = numbers.setdefault(id(storage), len(numbers))
            memories[value] = number, storage.capacity * storage.dtype.itemsize
    sizes = [size for _, size in sorted(dict(memories.values()).items())]
    spans = _find_spans(net)
    nodes = [_make_node(net, span, uses, memories) for span in spans]

    def again_of(segments: Sequence[Segment]) -> Again:
        chosen = [segment for segment in segments if segment.again]
        return {spans[each.end - 1][-1]: [i for k in each.again for i in spans[k]] for each in chosen}

    def peak(segments: Sequence[Segment]) -> int:
        again = again_of(segments)
        return most_alive_bytes(uses, lifetimes_of(again), again, memories)

    return again_of(choose_segments(nodes, sizes, {memories[Value(name)][0] for name in kept}, peak))


def run_again(net: Net, layers: Sequence[int], pass_index: int, done: Callable[[int], None]) -> None:
    """Run `layers` of `net` forward as in pass `pass_index`, calling `done` behind each."""
    statistics = [blob for i in layers for blob in net.layers[i].blobs[: net.layers[i].num_statistics]]
    memory = net.context.engine.memory
    before = [blob.read_data(memory).copy() for blob in statistics]
    random = net.context.random
    now, random.pass_index = random.pass_index, pass_index
    for i in layers:
        net.run_layer(i)
        done(i)
    random.pass_index = now
    for blob, values in zip(statistics, before, strict=True):
        blob.write_data(memory)[...] = values


def let_go(net: Net, i: int) -> None:
    """Let layer i, which runs forward again, or those that run as one with it, forget what forward has kept."""
    group = net.groups.get(i)
    if group is None:
        net.layers[i].let_go()
    elif i == group.first:
        group.layers.let_go()


def _find_spans(net: Net) -> list[range]:
    """Return the layers in the runs in which they go forward: groups as one, others alone."""
    groups = net.groups
    return [
        range(groups[i].first, groups[i].last + 1) if i in groups else range(i, i + 1)
        for i in range(len(net.layers))
        if i not in groups or i == groups[i].first
    ]


def _make_node(
    net: Net, span: range, uses: Sequence[LayerUse], memories: Mapping[Value, tuple[int, int]]
) -> Node:
    if span[0] in net.groups:
        bottoms = [net.bottom_names[k][place] for k, place in net.groups[span[0]].bottoms]
    else:
        bottoms = net.bottom_names[span[0]]
    tops = net.top_names[span[-1]]
    saved: set[str] = set()
    for use in (uses[k] for k in span if uses[k].runs_backward):
        saved.update(use.bottoms if use.reads_bottoms else (), use.tops if use.reads_tops else ())
    saved &= {*bottoms, *tops}  # what lies between is not there at all
    reads, writes, looked_at = (
        frozenset(memories[Value(name)][0] for name in names) for names in (bottoms, tops, saved)
    )
    return Node(reads, writes, looked_at, all(_can_run_again(net, k) for k in span))


def _can_run_again(net: Net, i: int) -> bool:
    """Return whether a layer may run forward twice and gives the same: it does nothing but compute its tops."""
    layer = net.layers[i]
    is_collective = isinstance(layer, BatchNorm) and layer.synchronised is not None
    return not (
        not net.bottoms[i]
        or not net.tops[i]
        or isinstance(layer, Python)
        or is_collective
        or layer.carries_state
        or layer.is_loss
        or any(net.loss_weights[i])
    )
