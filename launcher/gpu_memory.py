"""Whether a run fits the memory of its GPU: said before it begins, and once more where it turns out not to.

Stands between the net and the solver in the flow prototxt → graph → net → solver → communicator → snapshot. What is
planned may be wrong by copies, workspaces and what other processes do, so that only a run whose blobs alone can't
be there is refused; of another that may not fit it is said, and it goes on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from dtrain.core.engines.cupy.devices import Room, find_room, out_of_memory_error
from dtrain.core.errors import UserError
from dtrain.core.net.net import Net
from dtrain.launcher.memory_check import MEMORY_CHECKS, MemoryCheck
from dtrain.launcher.simulation.device_memory import WORKSPACE_BYTES, PassBytes, count_pass, has_workspace
from dtrain.launcher.simulation.work import find_batch_size
from dtrain.proto import caffe_pb2


@dataclass(frozen=True)
class Need:
    """What one net needs in a pass. title: the net, and its phase. batches: layer and batch_size of each that reads.

    has_workspace: whether an engine takes one for it beside. spares: whether --recompute would be another way out.
    beside: bytes that other nets keep from it, which a pass in a graph has no part of.
    """

    title: str
    batches: tuple[tuple[str, int], ...]
    in_pass: PassBytes
    has_workspace: bool = False
    spares: bool = False
    trains: bool = True
    beside: int = 0

    def workspace_bytes(self, room: Room) -> int:
        """Return the most that the workspace may be."""
        return min(WORKSPACE_BYTES, room.total_bytes // 10) if self.has_workspace else 0

    def share_that_fits(self, room: Room) -> float:
        """Return which part of the batch fits the room as planned; more than 1 if all of it does."""
        free_bytes = room.free_bytes - self.workspace_bytes(room) - self.beside
        return max(free_bytes, 0) / max(self.in_pass.planned, 1)


@MEMORY_CHECKS.register("gpu")
class GpuMemory(MemoryCheck):
    """Compares what nets will take with what the current GPU has free."""

    def __init__(self) -> None:
        self._needs: list[Need] = []
        self._room: Room | None = None

    def check(
        self, nets: Sequence[Net], recomputes: bool = False, shares: bool = True, captures: bool = False
    ) -> list[str]:
        """Return what is to be said of nets that may not fit. With graphs the train net has memory of its own.

        Raises UserError, with the largest batch that fits, for those that can't.
        """
        self._room = find_room()
        self._needs = [need_of(net, recomputes and net.phase == caffe_pb2.TRAIN, shares) for net in nets]
        if captures:
            tests = [need.in_pass.planned for need in self._needs if not need.trains]
            self._needs = [
                replace(need, beside=max(tests, default=0)) if need.trains else need for need in self._needs
            ]
        problems = [line for need in self._needs for line in refusal(need, self._room)]
        if problems:
            raise UserError(*problems)
        return [line for need in self._needs for line in warning(need, self._room)]

    @contextmanager
    def named(self) -> Iterator[None]:
        """Let what cupy raises in the with block where the GPU has no room for an array be a UserError that names
        the GPU and the largest batch.
        """
        try:
            yield
        except out_of_memory_error() as error:
            raise UserError(ran_out(error, find_room(), self._needs, self._room)) from error


def need_of(net: Net, recomputes: bool, shares: bool) -> Need:
    """Return what a pass of `net` needs."""
    phase = caffe_pb2.Phase.Name(net.phase)
    batches = [(layer.name, layer.loader.batch_size) for layer in net.reading_layers]
    return Need(
        title=f'{phase} net "{net.name}" ({net.recipe.document.path})',
        batches=tuple(batches) or (("", find_batch_size(net)),),
        in_pass=count_pass(net, recomputes, shares),
        has_workspace=has_workspace(net),
        spares=net.phase == caffe_pb2.TRAIN and shares and not recomputes,
        trains=net.phase == caffe_pb2.TRAIN,
    )


def refusal(need: Need, room: Room) -> list[str]:
    """Return the sentence on a net whose blobs alone are more than there is room for; none if they are not."""
    least = need.in_pass.least
    if least <= room.free_bytes:
        return []
    return [
        f"{need.title}: a pass must fit the {_gb(room.free_bytes)} that {room.name} has free, got blobs of"
        f" {_gb(least)}; {way_out(need, room)}"
    ]


def warning(need: Need, room: Room) -> list[str]:
    """Return the sentence on a net that may not fit; none if it should."""
    if need.share_that_fits(room) >= 1:
        return []
    planned = need.in_pass.planned
    others = f", {_gb(need.beside)} more for tests" if need.beside else ""
    workspace = f" and a workspace of up to {_gb(need.workspace_bytes(room))}" if need.has_workspace else ""
    return [
        f"{need.title}: a pass is planned to take {_gb(planned)}{others}{workspace}, and {room.name} has"
        f" {_gb(room.free_bytes)} free; if that runs out, {way_out(need, room)}"
    ]


def way_out(need: Need, room: Room, most: float = 1.0) -> str:
    """Return what makes the net fit: the largest batches as planned, of which none is more than `most` times what it
    is, and how updates stay as large.
    """
    share = min(need.share_that_fits(room), most)
    largest = [(layer, int(size * share)) for layer, size in need.batches]
    if min(size for _, size in largest) < 1:
        ways = ["not even one image a pass fits; it needs a larger GPU"]
    else:
        named = (
            f'batch_size {size} of layer "{layer}"' if layer else f"a batch of {size}"
            for layer, size in largest
        )
        ways = [f"the largest that fits as planned: {' and '.join(named)}"]
        ways += [_same_update(need.batches[0][1], largest[0][1])] * need.trains
    if need.spares:
        ways.append("--recompute needs less too")
    return "; ".join(ways)


def ran_out(error: Exception, now: Room, needs: Sequence[Need], before: Room | None) -> str:
    """Return the sentence on a GPU that had no room for an array.

    error: what cupy said. now: the room there was then. needs, before: what the run was planned to need, and the room
    it had; none where not even params and nets were there.
    """
    said = (
        f"{now.name}: the run must fit its {_gb(now.total_bytes)}, got {str(error).rstrip('.')}, with"
        f" {_gb(now.free_bytes)} free"
    )
    if not needs or before is None:
        return (
            f"{said}; other processes may have the rest (nvidia-smi), or the net's params are too many for it"
        )
    tightest = min(needs, key=lambda need: need.share_that_fits(before))
    return f"{said}; {tightest.title}: {way_out(tightest, before, most=0.5)}"


def _same_update(batch_size: int, largest: int) -> str:
    """Return how as many records make an update in smaller batches."""
    parts = next(k for k in range(-(-batch_size // largest), batch_size + 1) if batch_size % k == 0)
    return f"batch_size {batch_size // parts} with {parts} times the iter_size updates by as many records"


def _gb(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:,.2f} GB"
