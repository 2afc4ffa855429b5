"""Python: a layer whose code the user has written (see core/python_layers/base.py for what that looks like)."""

from __future__ import annotations

from collections.abc import Sequence

from dtrain.core.blob import Blob
from dtrain.core.caffe_state import STATE
from dtrain.core.errors import UserError
from dtrain.core.layers.layer import LAYERS, Arity, InPlace, Layer, LayerContext
from dtrain.core.python_layers.base import Layer as UsersLayer
from dtrain.core.python_layers.base import Phase
from dtrain.core.python_layers.failures import UsersCode
from dtrain.core.python_layers.loading import make_layer
from dtrain.proto import caffe_pb2


@LAYERS.register("Python")
class Python(Layer):
    """Bottoms, tops and params: any, as the user's class has it; a loss where the prototxt gives a loss_weight.

    python_param: module and layer (the class in it), param_str (handed to it as it is). share_in_parallel has
    no effect, as in Caffe: each rank has an instance of its own, which learns its rank from
    caffe.solver_rank() and caffe.solver_count(). users_layer: the instance. Its blobs show host arrays on
    every engine. Snapshots keep what its get_state returns, if it has that and set_state. Follows caffe's
    python_layer.hpp.
    """

    bottoms = Arity(0, None)
    tops = Arity(0, None)
    in_place = InPlace.YES  # what that means is up to the user's code
    forgets = "what its own code keeps (it has no get_state and set_state)"
    reshapes_each_pass = True  # code written for Caffe may load its data in reshape

    users_layer: UsersLayer

    def __init__(self, param: caffe_pb2.LayerParameter, context: LayerContext) -> None:
        super().__init__(param, context)
        shard = context.shard
        if shard.world_size > 1:
            STATE.solver_count, STATE.solver_rank = shard.world_size, shard.rank
        self.users_layer = users_layer = make_layer(param, context.net_path)
        users_layer.phase = Phase(self.phase)
        users_layer.param_str = users_layer.param_str_ = param.python_param.param_str
        self.blobs = users_layer.blobs
        self.keeps_state = all(hasattr(users_layer, name) for name in ("get_state", "set_state"))
        if self.keeps_state:
            self.forgets = ""  # type: ignore[misc]  # this layer's own

    @property
    def needs_host(self) -> str:
        """Why it can't be captured."""
        return "runs its user's code"

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Let the user's layer set itself up."""
        with UsersCode(self._word("setup"), type(self.users_layer)):
            self.users_layer.setup(bottom, top)

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Let the user's layer give the tops their shapes."""
        with UsersCode(self._word("reshape"), type(self.users_layer)):
            self.users_layer.reshape(bottom, top)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Let the user's layer compute."""
        with UsersCode(self._word("forward"), type(self.users_layer)):
            self.users_layer.forward(bottom, top)  # type: ignore[attr-defined]  # loading has checked it

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Let the user's layer compute gradients. Raises UserError if it has no backward and one is needed."""
        backward = getattr(self.users_layer, "backward", None)
        if backward is not None:
            with UsersCode(self._word("backward"), type(self.users_layer)):
                backward(top, propagate_down, bottom)
        elif any(propagate_down) or any(self.param_propagate_down):
            raise UserError(
                f"class {type(self.users_layer).__name__} must define backward(self, top, propagate_down, bottom), "
                "since a gradient is needed from it; or cut the gradient by propagate_down: false for its bottoms "
                "and lr_mult: 0 for its params"
            )

    def get_state(self) -> bytes | None:
        """Return what the user's layer wants to be kept; None if it has no get_state and set_state."""
        if not self.keeps_state:
            return None
        with UsersCode(self._word("get_state"), type(self.users_layer)):
            state = self.users_layer.get_state()  # type: ignore[attr-defined]  # __init__ has looked for it
        if not isinstance(state, bytes):
            raise UserError(f"{self._word('get_state')} must return bytes, got {type(state).__name__}")
        return state

    def set_state(self, state: bytes) -> None:
        """Hand the user's layer what its get_state returned."""
        with UsersCode(self._word("set_state"), type(self.users_layer)):
            self.users_layer.set_state(state)  # type: ignore[attr-defined]  # __init__ has looked for it

    def _word(self, method: str) -> str:
        return f"{type(self.users_layer).__name__}.{method}"
