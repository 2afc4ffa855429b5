"""The layer interface: Caffe's own protocol of setup, reshape, forward and backward.

A layer is written once; the arithmetic that is worth an engine's own code is asked of `self.engine` (see
engines/operations.py), the rest is written on arrays of the engine's module `self.xp` in its `self.memory`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

from dtrain.core.blob import Blob, BlobVec
from dtrain.core.engines.engine import Engine
from dtrain.core.errors import UserError
from dtrain.core.fillers import fill
from dtrain.core.random_streams import RandomStreams
from dtrain.core.registry import Registry
from dtrain.core.written_params import written_values
from dtrain.data.loader import Deal
from dtrain.data.sampler import Shard
from dtrain.data.synthetic_reader import Synthetic
from dtrain.dist.communicator import Communicator
from dtrain.proto import caffe_pb2

LAYERS: Registry[type[Layer]] = Registry("layer type")


class InPlace(Enum):
    """Whether a layer may write its top over its bottom (top and bottom of one name)."""

    YES = "yes"
    FORWARD_ONLY = "only where no gradient flows back"
    NO = "no"


@dataclass(frozen=True)
class Arity:
    """How many bottoms or tops a layer takes; `most` None is any number."""

    least: int = 1
    most: int | None = 1

    def describe(self) -> str:
        """Return the rule in words: 1, 1 to 2, 2 or more."""
        if self.most is None:
            return f"{self.least} or more"
        return str(self.least) if self.least == self.most else f"{self.least} to {self.most}"


@dataclass(frozen=True)
class LayerContext:
    """What a layer is told about its surroundings.

    phase: caffe_pb2.TRAIN or TEST. shard: this rank's share of what data layers read; `deal` says whether
    records ("records", training) or whole batches ("batches", tests) are dealt to the ranks. net_path: the file
    that names relative paths. communicator: the ranks that run the same net together, for layers that exchange
    values in forward and backward; None: this rank is alone. synthetic: records are made up,
    and how.
    """

    phase: int
    engine: Engine
    random: RandomStreams
    shard: Shard
    deal: Deal = "records"
    net_path: str = ""
    communicator: Communicator | None = None
    synthetic: Synthetic | None = None


class FusedLayers(ABC):
    """Layers that follow one another, as one; forward and backward are those of a Layer.

    Bottoms are those that come from outside: the first one's, then in order what later ones read beside what the one
    before them has made. Tops are the last one's; what lies between is not written.
    """

    @abstractmethod
    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Compute the tops' data."""

    @abstractmethod
    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Overwrite the diff of each bottom that propagate_down asks for; add to the diffs of all layers' params."""

    def fused_with(self, behind: Layer, num_bottoms: int, place: int) -> FusedLayers | None:
        """Return what does the work of these layers and of the one behind, as Layer.fused_with does."""
        return None

    def let_go(self) -> None:  # noqa: B027 (optional hook)
        """Forget what forward has kept for backward, as Layer.let_go does."""


class Layer(ABC):
    """One layer of a net.

    The class attributes are the layer's row in the catalogue: the numbers of bottoms and tops, whether it is a
    loss (its first top then has weight 1 and a missing top is made up), whether it may work in place, which
    bottoms can't be given a gradient, which params are running statistics that ranks average, and whether
    reshape is called before each forward though no bottom's shape has changed. messages: the fields of
    LayerParameter that it reads; None: the one that is named after the type, if there is one. extensions: the fields
    of dtrain_param that it knows. needs_whole_batches: a batch's rows follow one another in time, so that ranks are
    dealt whole batches in training too. carries_state: what it computes of a batch depends on the batches before, so
    that every rank runs all batches of a test. forgets: what a resumed run does not get back, in words.
    backward_reads_bottoms, backward_reads_tops: whether backward may look at the data of bottoms, of tops, beside
    their diffs; if not, their memory may be others' by then. shares_diffs: whether a bottom may take over the diff of
    a top.
    """

    bottoms: ClassVar[Arity] = Arity(1, 1)
    tops: ClassVar[Arity] = Arity(1, 1)
    equal_bottoms_tops: ClassVar[bool] = False
    is_loss: ClassVar[bool] = False
    in_place: ClassVar[InPlace] = InPlace.NO
    no_gradient_bottoms: ClassVar[tuple[int, ...]] = ()
    has_backward: ClassVar[bool] = True
    num_statistics: ClassVar[int] = 0  # the first so many params are statistics, not learned
    reshapes_each_pass: ClassVar[bool] = False
    messages: ClassVar[tuple[str, ...] | None] = None
    extensions: ClassVar[tuple[str, ...]] = ()
    needs_whole_batches: ClassVar[bool] = False
    carries_state: ClassVar[bool] = False
    forgets: ClassVar[str] = ""
    backward_reads_bottoms: bool = True
    backward_reads_tops: bool = True
    shares_diffs: ClassVar[bool] = False

    def __init__(self, param: caffe_pb2.LayerParameter, context: LayerContext) -> None:
        self.param = param
        self.name: str = param.name
        self.phase = context.phase
        self.context = context
        self.engine = context.engine
        self.memory = context.engine.memory
        self.xp = context.engine.xp
        self.blobs = BlobVec()
        self.param_propagate_down: list[bool] = []
        self.overwritten_by: tuple[str, ...] = ()  # types of the layers behind that do so on top 0
        self.runs_backward = True  # whether it may: if not, nothing needs to be kept for it

    @property
    def needs_host(self) -> str:
        """Why forward or backward can't be part of a CUDA graph, in words behind the layer's name; "": they can.

        Known after reshape. On a GPU they then neither look at values nor wait, copy nothing from or to the host, and
        do the same in each pass. Not asked of layers without bottoms, which run before the graph does.
        """
        return "takes another shape in each pass" if self.reshapes_each_pass else ""

    @property
    def type(self) -> str:
        """The type as prototxt names it."""
        return str(self.param.type)

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:  # noqa: B027 (optional hook)
        """Check the params and create the learned blobs; called once, bottoms have their shapes."""

    @abstractmethod
    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Give the tops their shapes; called after setup and whenever a bottom's shape has changed."""

    @abstractmethod
    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Compute the tops' data from the bottoms' data."""

    @abstractmethod
    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Overwrite the diff of each bottom that propagate_down asks for; add to the params' diffs."""

    def fused_with(self, behind: Layer, num_bottoms: int, place: int) -> FusedLayers | None:
        """Return what does the work of this layer and of the one that alone reads its top; None if there is no such.

        num_bottoms: how many that one has. place: which of them is the top. Both have been reshaped.
        """
        return None

    def let_go(self) -> None:  # noqa: B027 (optional hook)
        """Forget what forward has kept for backward, if that is large: forward runs again before that."""

    def get_state(self) -> bytes | None:
        """Return what this rank's layer carries from batch to batch beside its params; None: it never does.

        Snapshots keep it, so that a resumed run goes on bit for bit.
        """
        return None

    def set_state(self, state: bytes) -> None:  # noqa: B027 (optional hook)
        """Go on from what get_state of a layer that carries something returned. Raises UserError if it can't be."""

    def begin_anew(self) -> None:  # noqa: B027 (optional hook)
        """Forget what is carried from batch to batch; called before each test pass."""

    def close(self) -> None:  # noqa: B027 (optional hook)
        """Let go of threads and files; the net is not run any more."""

    def add_param(self, shape: tuple[int, ...], filler: caffe_pb2.FillerParameter) -> Blob:
        """Append a learned blob of `shape`, filled by `filler` from this param's own random numbers.

        Where the prototxt writes the layer's params out (`blobs`), it has those values. Raises UserError if they are
        of another shape.
        """
        values = written_values(self.param, len(self.blobs), shape)
        blob = self.blobs.add_blob(*shape)
        if values is not None:
            blob.update_data()[...] = values
            return blob
        random = self.context.random.for_filler(f"{self.name}:{len(self.blobs) - 1}")
        fill(blob.update_data(), filler, random)
        return blob

    def wants_param(self, index: int) -> bool:
        """Return whether the gradient of param `index` is wanted (its lr_mult is not 0)."""
        return self.param_propagate_down[index] if index < len(self.param_propagate_down) else True

    def canonical_axis(self, axis: int, num_axes: int, what: str) -> int:
        """Return `axis` counted from the front; raise UserError if there is no such axis."""
        if not -num_axes <= axis < num_axes:
            raise UserError(f"{what} must be {-num_axes} to {num_axes - 1} for {num_axes} axes, got {axis}")
        return axis % num_axes
