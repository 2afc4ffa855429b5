"""Reductions under way, cut into pieces that pass through stages: what start_all_reduce moves on.

In the flow prototxt → graph → net → solver → communicator → snapshot the communicators whose reductions move on
bit by bit keep one. What is done to a piece in a stage is theirs.

Ranks look at different times, so nothing that they exchange may depend on when. Within a stage the pieces come
in the same order on all ranks; between stages there is no order. So each stage must have a way of its own to
exchange messages (an MPI communicator, a channel of shared memory), and begin with what the others see.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

from dtrain.dist.reduction import Reduction
from dtrain.dist.waiting import Steps, pause, wait_until

Piece = Sequence[Steps]  # one Steps per stage


class Pipeline:
    """The stages, and the reductions that have not passed them all.

    Arguments:
        widths: for each stage how many pieces may be in it at a time; they are begun and ended in order.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        self._widths = widths
        self._coming: deque[tuple[Iterator[Piece], _Piped]] = deque()
        self._stages: list[deque[_Place]] = [deque() for _ in widths]
        self._failure: Exception | None = None
        self._num_left = 0

    def start(self, pieces: Iterator[Piece]) -> Reduction:
        """Let `pieces`, an iterator that makes them when there is room, follow those that were started before."""
        reduction = _Piped(self)
        self._coming.append((pieces, reduction))
        self._num_left += 1
        self.move_on()
        return reduction

    def move_on(self) -> bool:
        """Go as far as it goes without waiting; return whether anything moved. Raises ClusterError."""
        if not self._num_left:
            return False
        if self._failure is not None:
            raise self._failure
        try:
            moved = False
            while self._sweep():
                moved = True
        except Exception as error:
            self._failure = error  # an iterator that has raised would look as if it had come to its end
            raise
        return moved

    @property
    def is_empty(self) -> bool:
        """Whether all that were started are done."""
        return not self._num_left

    def finish(self) -> None:
        """Wait for all that were started."""
        wait_until(self.move_on, lambda: self.is_empty)

    def run(self, steps: Steps) -> None:
        """Go through `steps` to their end while the reductions of this pipeline move on."""
        num_looks = 0
        for moved in steps:
            num_looks = 0 if self.move_on() or moved else num_looks + 1
            pause(num_looks)

    def _sweep(self) -> bool:
        """Look once at each piece that may be in a stage; return whether any moved on."""
        moved = self._let_in()
        for number, width in enumerate(self._widths):
            places = self._stages[number]
            for index in range(min(width, len(places))):
                moved |= places[index].advance(number)
            while places and places[0].is_through:
                self._pass_on(places.popleft(), number)
                moved = True
        return moved

    def _let_in(self) -> bool:
        """Fill the first stage's room with the next pieces."""
        first, moved = self._stages[0], False
        while self._coming and len(first) < self._widths[0]:
            pieces, reduction = self._coming[0]
            piece = next(pieces, None)
            first.append(_Place(piece, reduction))
            moved = True
            if piece is None:
                self._coming.popleft()
        return moved

    def _pass_on(self, place: _Place, number: int) -> None:
        if number + 1 < len(self._stages):
            place.is_through = place.is_end
            self._stages[number + 1].append(place)
        elif place.is_end:
            place.reduction.is_done = True
            self._num_left -= 1


class _Place:
    """A piece on its way, or the end of a reduction, which passes behind its last piece."""

    __slots__ = ("_piece", "is_end", "is_through", "reduction")

    def __init__(self, piece: Piece | None, reduction: _Piped) -> None:
        self._piece: Piece = () if piece is None else piece
        self.is_end = self.is_through = piece is None
        self.reduction = reduction

    def advance(self, stage: int) -> bool:
        """Go as far as it goes in `stage`; return whether it moved on."""
        if self.is_through:
            return False
        moved = next(self._piece[stage], None)
        self.is_through = moved is None
        return moved is not False


class _Piped(Reduction):
    """A reduction whose pieces are in a pipeline."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self.is_done = False

    def test(self) -> bool:
        if not self.is_done:
            self._pipeline.move_on()
        return self.is_done

    def wait(self) -> None:
        wait_until(self._pipeline.move_on, lambda: self.is_done)
